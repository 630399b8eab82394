"""Tables of objects in files, and from the command line."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from typer.testing import CliRunner

from im2im_zoo.cli.app import app
from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.images import write_image
from im2im_zoo.objects import write_objects
from im2im_zoo.objects.table import object_table


@pytest.fixture
def labels(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    return xr.DataArray(
        nuclei_2d[1][:90, :90], dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}}
    )


def test_a_csv_holds_the_table_to_the_last_digit(labels: xr.DataArray, tmp_path: Path) -> None:
    write_objects(labels, tmp_path / "o.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "o.csv"), object_table(labels))


def test_parquet_holds_the_table_with_its_types(labels: xr.DataArray, tmp_path: Path) -> None:
    write_objects(labels, tmp_path / "o.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "o.parquet"), object_table(labels))


def test_parquet_without_its_library_names_the_extra(
    labels: xr.DataArray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    with pytest.raises(EvaluationError, match=r"pip install 'im2im_zoo\[parquet\]', or write a \.csv"):
        write_objects(labels, tmp_path / "o.parquet")


def test_the_command_measures_labels_and_image(
    labels: xr.DataArray, nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    image = xr.DataArray(nuclei_2d[0][:90, :90], dims=("y", "x"))
    write_image(labels, tmp_path / "l.ome.tif", labels=True)
    write_image(image, tmp_path / "i.ome.tif")
    files = [str(tmp_path / name) for name in ("o.csv", "o.geojson")]
    command = ["objects", str(tmp_path / "l.ome.tif"), *files, "--image", str(tmp_path / "i.ome.tif")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    table = pd.read_csv(files[0])
    assert len(table) == len(np.unique(labels)) - 1
    assert {"centroid_x_um", "area_um2", "mean", "touches_border"} <= set(table.columns)
    assert Path(files[1]).stat().st_size > 1000
