"""Tables of image pairs: one row a pair, with a column of paths or addresses for each kind of image."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.core.errors import DataError, ImageError
from im2im_zoo.data.pairing.files import format_file_list
from im2im_zoo.data.pairing.pairs import resolve_place
from im2im_zoo.images import Place, as_place
from im2im_zoo.recipe.components import suggest_nearest

_SPLIT = "split"


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it is written, not checked yet.

    Attributes:
        name: for messages.
        folder: that paths are relative to.
        columns: their names.
        lines: for each row its name in messages ("line 2") and its cells by column.
    """

    name: str
    folder: Path
    columns: tuple[str, ...]
    lines: tuple[tuple[str, Mapping[str, str]], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        inputs, target, cost: absolute or relative paths, or addresses.
        split: `train` or `val`, if the table has the column.
        group: of the image, if the table has the column.
    """

    inputs: tuple[Place, ...]
    target: Place
    cost: Place | None
    split: str | None
    group: str | None = None

    @property
    def files(self) -> tuple[Place, ...]:
        """All files of the row."""
        return (*self.inputs, self.target, *([] if self.cost is None else [self.cost]))


def read_table(path: Path) -> Table:
    """Read a table with a header row and commas, semicolons or tabs between cells; empty rows are skipped.

    Raises:
        DataError: there is no such file, or it is not a table.
    """
    if not path.is_file():
        raise DataError(
            f"data.path: {path} is not a file; with data.pairing: csv, give the path of the table, or its rows in data.pairs"
        )
    try:
        # Spreadsheets write a byte order mark, and semicolons where the comma is the decimal point.
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=max(",;\t", key=first.count), restval="")
            header = [column.strip() for column in reader.fieldnames or []]
            reader.fieldnames = header
            lines = [(f"line {reader.line_num}", _strip_cells(cells)) for cells in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"data.path: {path} cannot be read as a UTF-8 table: {error}; save it as UTF-8"
        ) from error
    filled = tuple((number, cells) for number, cells in lines if any(cells.values()))
    return Table(str(path), path.parent, tuple(header), filled)


def make_table(rows: Sequence[Mapping[str, str]], folder: Path) -> Table:
    """Make a table of the rows in a recipe; paths are relative to `folder`."""
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    lines = tuple(
        (f"row {number}", dict.fromkeys(columns, "") | dict(row)) for number, row in enumerate(rows)
    )
    return Table("data.pairs", folder, columns, lines)


def parse_rows(
    table: Table,
    inputs: Sequence[str],
    target: str,
    cost: str | None = None,
    group: str | None = None,
    *,
    with_split: bool,
) -> list[Row]:
    """Parse the rows of a table, in its order; other columns are ignored.

    Args:
        table: of paths, relative to its folder, and addresses.
        inputs: columns of the files of an input.
        target: column of the targets.
        cost: column of the cost maps, if there are any.
        group: column of the groups, whose images stay on one side of the split, if there is one.
        with_split: whether to read train or val from the column `split`.

    Raises:
        DataError: a missing column or cell, a file that does not exist, an address that cannot be used, the same input in
            two rows.
    """
    keyed = [("data.input", column) for column in inputs]
    keyed += [("data.target", target), ("data.cost", cost or ""), ("data.group", group or "")]
    keyed += [("data.split: column", _SPLIT if with_split else "")]
    for key, column in keyed:
        if column and column not in table.columns:
            raise DataError(
                f"{key}: {table.name} has no column {column!r}{suggest_nearest(column, table.columns)}"
            )
    wanted = [column for _, column in keyed if column]
    rows = []
    for number, cells in table.lines:
        where = f"{table.name}, {number}"
        empty = [column for column in wanted if not cells[column]]
        if empty:
            raise DataError(f"{where}: the column {empty[0]!r} is empty; fill it in every row")
        try:
            places = {
                column: _parse_place(cells[column], table.folder)
                for column in (*inputs, target, cost)
                if column
            }
        except ImageError as error:
            raise DataError(f"{where}: {error}") from error
        files = tuple(places[column] for column in inputs)
        split = _parse_split(cells, where) if with_split else None
        known = cells[group] if group else None
        rows.append(Row(files, places[target], places[cost] if cost else None, split, known))
    if not rows:
        raise DataError(f"{table.name} has no rows; add one row for each pair of images")
    _check_files(table, rows)
    return rows


def _parse_place(cell: str, folder: Path) -> Place:
    place = as_place(cell)
    # Joining with an absolute path gives that path.
    return folder / place if isinstance(place, Path) else place


def _parse_split(cells: Mapping[str, str], where: str) -> str:
    split = cells[_SPLIT].lower()
    if split not in ("train", "val"):
        raise DataError(f"{where}: the column 'split' has {split!r}; give train or val")
    return split


def _strip_cells(cells: Mapping[str | None, str | list[str]]) -> dict[str, str]:
    return {key: value.strip() for key, value in cells.items() if key is not None and isinstance(value, str)}


def _check_files(table: Table, rows: Sequence[Row]) -> None:
    numbered = [(number, row) for (number, _), row in zip(table.lines, rows, strict=True)]
    lost = [
        f"{number}: {file}"
        for number, row in numbered
        for file in row.files
        if isinstance(file, Path) and not file.exists()
    ]
    if lost:
        raise DataError(
            f"{table.name} lists files that do not exist; correct the paths (relative ones start at {table.folder.absolute()}):\n"
            f"{format_file_list(lost)}"
        )
    seen: dict[Place, str] = {}
    doubled = []
    for number, row in numbered:
        first = seen.setdefault(resolve_place(row.inputs[0]), number)
        if first != number:
            doubled.append(f"{first} and {number}: {row.inputs[0]}")
    if doubled:
        raise DataError(
            f"{table.name} lists the same input more than once; keep one row for each:\n{format_file_list(doubled)}"
        )
