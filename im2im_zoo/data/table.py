"""The CSV table of image pairs: one row a pair, a column of paths for each kind of image. Knows no splitting."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.components import nearest
from im2im_zoo.data.files import list_files
from im2im_zoo.errors import DataError

_SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: absolute or resolved paths, and `train` or `val` if the table says so."""

    input: Path
    target: Path
    cost: Path | None
    split: str | None
    group: str | None = None


def read_table(
    path: Path,
    input_column: str,
    target_column: str,
    cost_column: str | None = None,
    group_column: str | None = None,
    *,
    with_split: bool,
) -> list[Row]:
    """The rows of a table, in its order. Columns that are not named are ignored, and so are empty rows.

    Args:
        path: the table; commas, semicolons or tabs between cells; a header row.
        input_column, target_column: columns of paths, relative to the folder of the table.
        cost_column: that of the cost maps, if there are any.
        group_column: that of words which are equal for images that belong together, if there is one.
        with_split: whether the column `split` has to say train or val.

    Raises:
        DataError: no table, a missing column or cell, a file that does not exist, the same input in two rows.
    """
    header, lines = _read(path)
    keyed = {
        "data.input": input_column,
        "data.target": target_column,
        "data.cost": cost_column,
        "data.group": group_column,
        "data.split: column": _SPLIT if with_split else None,
    }
    wanted = {key: column for key, column in keyed.items() if column is not None}
    for key, column in wanted.items():
        if column not in header:
            raise DataError(f"{key}: {path} has no column {column!r}{nearest(column, header)}")
    rows = [_row(path, number, cells, wanted) for number, cells in lines]
    if not rows:
        raise DataError(f"{path} has a header and no rows; give one row a pair of images")
    _check_files(path, [number for number, _ in lines], rows)
    return rows


def _read(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    if not path.is_file():
        raise DataError(f"data.path: {path} is no file; data.pairing: csv needs the path of the table itself")
    try:
        # Spreadsheets write a byte order mark, and semicolons where the comma is the decimal point.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=first.count), restval="")
            header = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = header
            lines = [(reader.line_num, _strip(cells)) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"data.path: {path} cannot be read as a UTF-8 table: {error}") from error
    return header, [(number, cells) for number, cells in lines if any(cells.values())]


def _strip(cells: Mapping[str | None, str | list[str]]) -> dict[str, str]:
    return {key: value.strip() for key, value in cells.items() if key is not None and isinstance(value, str)}


def _row(path: Path, number: int, cells: Mapping[str, str], wanted: Mapping[str, str]) -> Row:
    empty = [column for column in wanted.values() if not cells[column]]
    if empty:
        raise DataError(f"{path}, line {number}: the column {empty[0]!r} is empty; every row needs it")
    split = cells[_SPLIT].lower() if "data.split: column" in wanted else None
    if split not in (None, "train", "val"):
        raise DataError(
            f"{path}, line {number}: the column 'split' says {split!r}; it has to be train or val"
        )
    # Joining with an absolute path gives that path.
    files = {key: path.parent / cells[column] for key, column in wanted.items()}
    group = cells[wanted["data.group"]] if "data.group" in wanted else None
    return Row(files["data.input"], files["data.target"], files.get("data.cost"), split, group)


def _check_files(path: Path, numbers: list[int], rows: list[Row]) -> None:
    numbered = list(zip(numbers, rows, strict=True))
    lost = [
        f"line {number}: {file}"
        for number, row in numbered
        for file in (row.input, row.target, row.cost)
        if file is not None and not file.exists()
    ]
    if lost:
        raise DataError(
            f"{path} names files that do not exist (relative paths start at {path.parent.absolute()}):\n"
            f"{list_files(lost)}"
        )
    seen: dict[Path, int] = {}
    doubled = []
    for number, row in numbered:
        first = seen.setdefault(row.input.resolve(), number)
        if first != number:
            doubled.append(f"lines {first} and {number}: {row.input}")
    if doubled:
        raise DataError(
            f"{path} names the same input more than once; keep one row each:\n{list_files(doubled)}"
        )
