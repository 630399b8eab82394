"""Chunks of a zarr input that are missing are counted and reported; a reader gets the fill value in their place."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, join_channels, missing_chunks, open_image
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict
from im2im_zoo.runtime.predictor import open_package_model


def write(path: Path, shape: tuple[int, ...] = (2, 100, 90), version: str = "0.5", **options: object) -> Path:
    """An image of channel, y, x in chunks of 1, 20, 30: 5 x 3 a channel."""
    values = np.random.default_rng(0).integers(1, 4000, shape).astype(np.uint16)
    given = {
        "axes": "cyx",
        "shape": shape,
        "dtype": "uint16",
        "chunks": (1, 20, 30),
        "ome_zarr_version": version,
    }
    with create_image(path, **(given | options)) as writer:  # type: ignore[arg-type]
        writer.write({}, values)
    return path


def lose(path: Path, version: str, *keys: str) -> None:
    for key in keys:
        (path / "0" / ("c" if version == "0.5" else "") / key).unlink()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_only_chunks_that_are_read_are_counted(tmp_path: Path, version: str) -> None:
    path = write(tmp_path / "image.ome.zarr", version=version)
    assert list(missing_chunks(open_image(path))) == []
    lose(path, version, "1/0/0", "1/4/2")
    image = open_image(path)
    [(where, found)] = missing_chunks(image)
    assert where == str(path / "0")
    assert found == (2, 30, 0)
    assert list(missing_chunks(open_image(path, channels=[0]))) == []
    assert [f for _, f in missing_chunks(open_image(path, channels=[1]))] == [(2, 15, 0)]
    assert [f for _, f in missing_chunks(image.isel(channel=1, y=slice(0, 40)))] == [(1, 6, 0)]


def test_keys_with_dots_and_shards_are_known(tmp_path: Path) -> None:
    array = zarr.create_array(
        tmp_path / "dots.zarr", shape=(40, 60), chunks=(20, 20), dtype="uint16", zarr_format=2, fill_value=7
    )
    array[:20] = 3
    assert (tmp_path / "dots.zarr" / "0.2").is_file()
    assert [f for _, f in missing_chunks(open_image(tmp_path / "dots.zarr", axes="yx"))] == [(3, 6, 7)]
    path = write(tmp_path / "shards.ome.zarr", shards=(1, 40, 90))
    assert list(missing_chunks(open_image(path))) == []
    lose(path, "0.5", "0/2/0")
    assert [f for _, f in missing_chunks(open_image(path))] == [(1, 6, 0)]


def test_of_joined_files_those_whose_channels_are_used_are_counted(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.ome.zarr", shape=(1, 100, 90)) for name in "ab"]
    lose(paths[1], "0.5", "0/0/0")
    joined = join_channels([open_image(p) for p in paths], ["a", "b"])
    assert [f.missing for _, f in missing_chunks(joined)] == [1]
    assert list(missing_chunks(joined.isel(channel=[0]))) == []


def test_other_images_have_no_chunks(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 6)))
    assert list(missing_chunks(open_image(tmp_path / "a.npy"))) == []
    assert list(missing_chunks(xr.DataArray(np.zeros((5, 6)), dims=("y", "x")))) == []


def test_a_prediction_warns_and_strict_refuses(unet_2d: Package, tmp_path: Path) -> None:
    path = write(tmp_path / "image.ome.zarr", shape=(1, 100, 90))
    output = tmp_path / "out.tif"
    whole = predict(unet_2d, path, tmp_path / "whole.tif", strict=True, threads=1)
    assert not whole.plan.warnings
    lose(path, "0.5", "0/0/0")
    with pytest.raises(ImageError, match=r"1 of 15 chunks \(6\.7 %\) are missing and are read as 0; copy"):
        predict(unet_2d, path, output, strict=True, threads=1)
    assert not output.exists()
    with pytest.raises(ImageError, match="leave out --strict"):
        open_package_model(unet_2d).plan(path, strict=True)
    [warning] = predict(unet_2d, path, output, threads=1).plan.warnings
    assert "1 of 15 chunks (6.7 %) are missing" in warning
    assert "--strict" in warning
