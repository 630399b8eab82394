"""Chunks, shards and positions of an OME-Zarr that is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models import open_ome_zarr

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image, pixel_size_um, write_image
from im2im_zoo.images.formats.ome_zarr.pyramid import halve


def test_shards_hold_the_chunks_of_each_level_and_read_back(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 60000, (2, 5, 1500, 1300)).astype(np.uint16)
    path = tmp_path / "a.ome.zarr"
    writer = create_image(
        path,
        axes="czyx",
        shape=voxels.shape,
        dtype="uint16",
        chunks=(1, 5, 128, 128),
        shards=(1, 5, 512, 512),
    )
    assert writer.chunks == (1, 5, 512, 512)
    with writer:
        writer.write({}, voxels)
    assert type(open_ome_zarr(path, version="0.5")).__name__ == "Image"
    group = zarr.open_group(path, mode="r")
    expected = voxels
    for number, shards in enumerate([(512, 512), (512, 512), (384, 384), (256, 256)]):
        array = group[str(number)]
        assert isinstance(array, zarr.Array)
        assert (array.shape, array.chunks) == (expected.shape, (1, 5, 128, 128))
        assert array.shards == (1, 5, *shards)
        np.testing.assert_array_equal(array[...], expected)
        expected = halve(expected, (1, 1, 2, 2), average=True)
    np.testing.assert_array_equal(open_image(path)[1, 2, 500:520, 1290:].values, voxels[1, 2, 500:520, 1290:])
    assert sum(p.is_file() for p in (path / "0/c").rglob("*")) == 2 * 3 * 3


def test_shards_that_exceed_the_image_hold_all_of_it(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).random((3, 100, 90), np.float32)
    with create_image(
        tmp_path / "a.zarr",
        axes="yxz",
        shape=(100, 90, 3),
        dtype="float32",
        chunks=(64, 64, 8),
        shards=(1024, 1024, 16),
    ) as writer:
        assert writer.chunks == (100, 90, 3)
        writer.write({}, voxels.transpose(1, 2, 0))
    array = zarr.open_array(tmp_path / "a.zarr/0", mode="r")
    assert (array.chunks, array.shards) == ((3, 64, 64), (3, 128, 128))
    np.testing.assert_array_equal(array[...], voxels)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ome_zarr_version": "0.4"}, r"0\.4 has no shards"),
        ({"chunks": None}, "multiples of the chunks"),
        ({"shards": (100, 128)}, r"\(100, 128\) must be multiples of the chunks \(64, 64\)"),
        ({"shards": (128,)}, "shards.*one side above zero"),
    ],
)
def test_shards_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    given: dict[str, Any] = {"chunks": (64, 64), "shards": (128, 128)} | wrong
    with pytest.raises(ImageError, match=said):
        create_image(tmp_path / "a.zarr", axes="yx", shape=(300, 300), dtype="uint8", **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_position_of_the_first_voxel_is_kept_at_every_level(tmp_path: Path, version: Any) -> None:
    image = xr.DataArray(
        np.ones((3, 600, 600), np.uint8),
        dims=("z", "y", "x"),
        attrs={
            "pixel_size_um": {"z": 2.0, "y": 0.25, "x": 0.5},
            "translation_um": {"z": -4.0, "x": 100.0},
        },
    )
    path = write_image(image, tmp_path / "a.ome.zarr", ome_zarr_version=version)
    assert type(open_ome_zarr(path, version=version)).__name__ == "Image"
    assert open_image(path).attrs["translation_um"] == {"z": -4.0, "x": 100.0}
    level = open_image(path / "1")
    assert level.attrs["translation_um"] == {"z": -4.0, "y": 0.125, "x": 100.25}
    # A level that is written as an image of its own stays where it is.
    copied = open_image(write_image(level, tmp_path / "b.ome.zarr", ome_zarr_version=version))
    assert copied.attrs["translation_um"] == level.attrs["translation_um"]
    assert pixel_size_um(copied) == pixel_size_um(level)


def test_a_position_needs_a_pixel_size_and_a_finite_number(tmp_path: Path) -> None:
    given: dict[str, Any] = {"axes": "yx", "shape": (20, 20), "dtype": "uint8"}
    with create_image(
        tmp_path / "a.zarr", **given, pixel_size_um={"y": 1.0}, translation_um={"y": 3.0, "x": 4.0, "z": 5.0}
    ):
        pass
    assert open_image(tmp_path / "a.zarr").attrs["translation_um"] == {"y": 3.0}
    with pytest.raises(ImageError, match="translation must be finite"):
        create_image(
            tmp_path / "b.zarr", **given, pixel_size_um={"y": 1.0}, translation_um={"y": float("nan")}
        )
