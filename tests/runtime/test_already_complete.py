"""The same command after a finished prediction reports that it is complete; another one does not replace the output."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from groupings_for_tests import MakeGrouped

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.execute.work_folder import work_folder

OPTIONS: dict[str, Any] = {"tile": {"y": 60, "x": 60}, "halo": 16, "threads": 1}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 4000, (2, 100, 90)).astype(np.uint16)
    return write_image(xr.DataArray(values, dims=("time", "y", "x")), tmp_path / "image.ome.zarr")


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif", ".tif"])
def test_the_same_command_is_complete_and_others_are_refused(
    unet_2d: Package, source: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"out{ending}"
    first = predict(unet_2d, source, output, **OPTIONS)
    assert not first.already_complete
    before = open_image(output).to_numpy()
    changed = output.stat().st_mtime_ns

    again = predict(unet_2d, source, output, **OPTIONS)
    assert again.already_complete
    assert (again.tiles, again.resumed, again.outputs) == (0, len(first.plan), (output,))
    assert again.plan.cuts == first.plan.cuts
    assert again.plan.memory == first.plan.memory
    assert output.stat().st_mtime_ns == changed

    with pytest.raises(ImageError, match=r"written from other settings.*--overwrite"):
        predict(unet_2d, source, output, **(OPTIONS | {"halo": 20}))
    other = write_image(open_image(source) + 1, tmp_path / "other.ome.zarr")
    with pytest.raises(ImageError, match=r"written from another image.*--overwrite"):
        predict(unet_2d, other, output, **OPTIONS)
    np.testing.assert_array_equal(open_image(output), before)

    replaced = predict(unet_2d, source, output, overwrite=True, **OPTIONS)
    assert (replaced.already_complete, replaced.tiles) == (False, len(first.plan))
    assert not work_folder(output).exists()


def test_a_complete_output_that_lost_files_is_reported(
    unet_2d: Package, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.ome.zarr"
    predict(unet_2d, source, output, **OPTIONS)
    assert not predict(unet_2d, source, output, **OPTIONS).warnings
    chunk, *_ = sorted(p for p in (output / "0").rglob("*") if p.is_file() and p.suffix != ".json")
    chunk.unlink()
    done = predict(unet_2d, source, output, **OPTIONS)
    assert done.already_complete
    [warning] = done.warnings
    assert "1 of " in warning
    assert "--overwrite" in warning


def test_another_version_is_another_command(
    unet_2d: Package, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.tif"
    predict(unet_2d, source, output, **OPTIONS)
    monkeypatch.setattr("im2im_zoo.runtime.execute.prediction_run.version", lambda _: "99")
    with pytest.raises(ImageError, match="another version"):
        predict(unet_2d, source, output, **OPTIONS)


def test_a_file_that_cannot_state_its_command_is_refused_with_the_reason(
    unet_2d: Package, source: Path, tmp_path: Path
) -> None:
    predict(unet_2d, source, tmp_path / "out.npy", **OPTIONS)
    with pytest.raises(
        ImageError, match=r"a \.npy file does not state the command that wrote it.*--overwrite"
    ):
        predict(unet_2d, source, tmp_path / "out.npy", **OPTIONS)


def test_an_image_of_someone_else_is_refused(unet_2d: Package, source: Path, tmp_path: Path) -> None:
    mine = write_image(open_image(source), tmp_path / "mine.tif")
    with pytest.raises(ImageError, match="does not state the command"):
        predict(unet_2d, source, mine, **OPTIONS)


@pytest.mark.parametrize("name", ["out.ome.zarr", "out.tif", "image.ome.zarr/labels/cells"])
def test_labels_are_complete_with_their_number_of_objects(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path, name: str
) -> None:
    package, output = make_grouped(), tmp_path / name
    source = write_image(movie, tmp_path / "image.ome.zarr")
    first = predict(package, source, output, **OPTIONS)
    again = predict(package, source, output, **OPTIONS)
    assert again.already_complete
    assert again.labels == first.labels
    assert again.objects == first.objects
    with pytest.raises(ImageError, match="other settings"):
        predict(package, source, output, **(OPTIONS | {"halo": 20}))


def test_maps_without_their_labels_are_not_complete(
    make_grouped: MakeGrouped, movie: xr.DataArray, tmp_path: Path
) -> None:
    package, output = make_grouped(), tmp_path / "out.ome.zarr"
    source = write_image(movie, tmp_path / "image.ome.zarr")
    predict(package, source, output, **OPTIONS)
    (output / "labels").rename(tmp_path / "elsewhere")
    with pytest.raises(ImageError, match="not all outputs of this command do"):
        predict(package, source, output, **OPTIONS)
