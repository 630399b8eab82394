"""Files of objects: a table as CSV or Parquet, outlines as GeoJSON; whole or not at all."""

import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from im2im_zoo.core.atomic import atomic_output, remove_leftovers
from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.objects.check import check_labels
from im2im_zoo.objects.geojson import outlines
from im2im_zoo.objects.table import Measure, object_table, pixel_sizes

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet", ".geojson")


def check_objects_path(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that objects cannot be written to, before anything is computed.

    Raises:
        EvaluationError: another suffix, no such folder, an existing file, or a missing library.
    """
    if path.suffix.lower() not in FORMATS:
        raise EvaluationError(
            f"{path}: objects are written as {', '.join(FORMATS)}; give it one of these endings"
        )
    if not path.parent.is_dir():
        raise EvaluationError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise EvaluationError(f"{path}: exists already; choose another path, or replace it with --overwrite")
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise EvaluationError(
            f"{path}: Parquet is written by pyarrow, which is not installed: pip install 'im2im_zoo[parquet]', or write a .csv"
        )


def write_objects(
    labels: xr.DataArray,
    path: str | Path,
    image: xr.DataArray | None = None,
    *,
    overwrite: bool = False,
    measure: Measure = "basic",
    exclude_border: bool = False,
    parents: xr.DataArray | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> int:
    """Measure the objects of a label image, and write the table (`.csv`, `.parquet`) or the outlines (`.geojson`).

    Args:
        labels, image, measure, exclude_border, parents: see `object_table`.
        path: its suffix selects the format.
        overwrite: replace what is there.
        report: called with notes for the user: an unknown pixel size, or objects that are too large for some measurements.

    Returns:
        The number of objects.

    Raises:
        EvaluationError: see `check_objects_path`, `check_labels` and `object_table`, or a file that cannot be written.
    """
    target = Path(path)
    check_objects_path(target, overwrite=overwrite)
    check_labels(labels)
    table = object_table(labels, image, measure=measure, exclude_border=exclude_border, parents=parents)
    for note in _notes(table, labels, image):
        report(note)
    remove_leftovers(target)
    try:
        with atomic_output(target, durable=True) as partial:
            _write(table, labels, partial, target.suffix.lower())
    except OSError as error:
        raise EvaluationError(f"{target}: cannot be written: {error.strerror or error}") from error
    return len(table)


def write_several(
    tables: Iterable[tuple[str, "pd.DataFrame"]], path: str | Path, column: str, *, overwrite: bool = False
) -> int:
    """Write the tables of several images as one, with the name of each image in a first column.

    Args:
        tables: name and `object_table` of each image.
        path: a `.csv` or `.parquet`.
        column: such as `file` or `field`.
        overwrite: replace what is there.

    Returns:
        The number of objects.

    Raises:
        EvaluationError: see `check_objects_path`, outlines, or a file that cannot be written.
    """
    import pandas as pd

    target = Path(path)
    check_objects_path(target, overwrite=overwrite)
    if target.suffix.lower() == ".geojson":
        raise EvaluationError(
            f"{target}: outlines are of one image; write a .csv or .parquet, or one image at a time"
        )
    found = []
    for name, table in tables:
        table.insert(0, column, name)
        found.append(table)
    whole = pd.concat(found, ignore_index=True)
    remove_leftovers(target)
    try:
        with atomic_output(target, durable=True) as partial:
            _write(whole, xr.DataArray(), partial, target.suffix.lower())
    except OSError as error:
        raise EvaluationError(f"{target}: cannot be written: {error.strerror or error}") from error
    return len(whole)


def _notes(table: "pd.DataFrame", labels: xr.DataArray, image: xr.DataArray | None) -> list[str]:
    """Return notes on what the table lacks."""
    found = []
    sizes = pixel_sizes(labels, image)
    if not sizes:
        found.append("No pixel size is known: lengths are in pixels (columns that end in _px)")
    if "solidity" in table and (count := int(table["solidity"].isna().sum())):
        found.append(f"{count} objects are too large to measure their outline; these cells are empty")
    if "perimeter_um" in table and sizes["y"] != sizes["x"]:
        found.append("The pixels are not square: there is no perimeter")
    return found


def _write(table: "pd.DataFrame", labels: xr.DataArray, path: Path, ending: str) -> None:
    if ending == ".csv":
        table.to_csv(path, index=False, lineterminator="\n")
    elif ending == ".parquet":
        table.to_parquet(path, engine="pyarrow", index=False)
    else:
        _write_features(outlines(labels, table), path)


def _write_features(features: Iterable[dict[str, Any]], path: Path) -> None:
    """Write features one a line, as they are computed."""
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write(("," if number else "") + "\n" + json.dumps(feature, allow_nan=False))
        file.write("\n]}\n")
