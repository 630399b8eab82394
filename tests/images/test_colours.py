"""Colours of pictures: one rule for PNG, JPEG and TIFF."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr
from PIL import Image

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import open_image, write_image

RGB = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
RGBA = np.dstack([RGB, np.full((40, 50), 255, np.uint8)])
PICTURES = {
    "rgb.png": lambda path: Image.fromarray(RGB).save(path),
    "rgba.png": lambda path: Image.fromarray(RGBA).save(path),
    "rgb.bmp": lambda path: Image.fromarray(RGB).save(path),
    "rgb.tif": lambda path: tifffile.imwrite(path, RGB, photometric="rgb"),
    "planar.tif": lambda path: tifffile.imwrite(path, np.moveaxis(RGB, -1, 0), photometric="rgb", planarconfig="separate"),
    "rgba.tif": lambda path: tifffile.imwrite(path, RGBA, photometric="rgb", extrasamples=["unassalpha"]),
    "unstated.tif": lambda path: tifffile.imwrite(path, RGBA, photometric="rgb", extrasamples=["unspecified"]),
    "rgb.ome.tif": lambda path: tifffile.imwrite(path, RGB, photometric="rgb", ome=True),
    "imagej.tif": lambda path: tifffile.imwrite(path, RGB, photometric="rgb", imagej=True),
    "pages.ome.zarr": lambda path: write_image(
        xr.DataArray(np.moveaxis(RGBA, -1, 0), dims=("channel", "y", "x"), coords={"channel": ["red", "green", "blue", "alpha"]}), path
    ),
}  # fmt: skip


@pytest.fixture(params=PICTURES)
def picture(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    PICTURES[request.param](tmp_path / request.param)
    return tmp_path / request.param


def test_colours_are_named_and_transparency_is_left_out(picture: Path) -> None:
    opened = open_image(picture)
    assert opened["channel"].values.tolist() == ["red", "green", "blue"]
    np.testing.assert_array_equal(opened.transpose("y", "x", "channel").values, RGB)


def test_one_colour_is_chosen_by_name_or_number(picture: Path) -> None:
    for chosen in (["green"], [1], ["1"]):
        np.testing.assert_array_equal(
            open_image(picture, channels=chosen).squeeze("channel").values, RGB[..., 1]
        )


def test_grey_is_the_luminance_in_the_same_type(picture: Path) -> None:
    grey = open_image(picture, channels=["grey"])
    assert grey.dims == ("y", "x")
    assert grey.dtype == np.uint8
    exact = RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey.values, exact, atol=0.5 + 1e-9)
    # Pillow rounds down at a half, and by 16 bits.
    assert (
        np.abs(grey.values.astype(int) - np.asarray(Image.fromarray(RGB).convert("L")).astype(int)).max() <= 1
    )
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(grey))[3:9, ::7].values, grey.values[3:9, ::7])


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_grey_of_equal_colours_is_exact(dtype: str, tmp_path: Path) -> None:
    plane = np.random.default_rng(1).integers(0, 255, (40, 50)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([plane] * 3), photometric="rgb")
    np.testing.assert_allclose(open_image(tmp_path / "a.tif", channels=["grey"]).values, plane, rtol=1e-7)


def test_grey_takes_a_greyscale_image_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([RGB[..., 0], RGBA[..., 3]])).save(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        for channels in (None, ["grey"]):
            opened = open_image(tmp_path / name, channels=channels)
            assert opened.dims == ("y", "x")
            np.testing.assert_array_equal(opened.values, RGB[..., 0])
    with pytest.raises(AxesError, match=r"has no channel axis.*greyscale.*'grey'"):
        open_image(tmp_path / "a.png", channels=["red"])


def test_channels_that_are_no_colours_are_not_converted(tmp_path: Path) -> None:
    named = xr.DataArray(
        np.moveaxis(RGB, -1, 0), dims=("channel", "y", "x"), coords={"channel": ["DAPI", "GFP", "RFP"]}
    )
    path = write_image(named, tmp_path / "a.ome.tif")
    with pytest.raises(ImageError, match=r"only the colours.*\(DAPI, GFP, RFP\).*counted from 0"):
        open_image(path, channels=["grey"])


def palette(path: Path, colours: Any, indices: Any) -> Path:
    image = Image.new("P", indices.shape[::-1])
    image.putdata(indices.ravel().tolist())
    image.putpalette(np.asarray(colours, np.uint8).ravel().tolist())
    image.save(path)
    return path


def test_a_palette_has_colours_as_input_and_numbers_as_labels(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 2, (40, 50), np.uint8)
    colours = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    path = palette(tmp_path / "a.png", colours, indices)
    np.testing.assert_array_equal(open_image(path).values, colours[indices])
    labels = open_image(path, labels=True)
    assert labels.dims == ("y", "x")
    np.testing.assert_array_equal(labels.values, indices)
    tifffile.imwrite(tmp_path / "a.tif", indices)
    np.testing.assert_array_equal(open_image(tmp_path / "a.tif", labels=True).values, indices)


def test_a_palette_of_greys_is_greyscale(tmp_path: Path) -> None:
    indices = np.random.default_rng(0).integers(0, 3, (40, 50), np.uint8)
    path = palette(tmp_path / "a.png", [[v, v, v] for v in (9, 90, 200)], indices)
    np.testing.assert_array_equal(open_image(path).values, np.array([9, 90, 200])[indices])


def test_one_bit_is_true_and_false_in_png_and_tiff(tmp_path: Path) -> None:
    mask = RGB[..., 0] > 99
    Image.fromarray(mask).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", mask, photometric="minisblack")
    for name in ("a.png", "a.tif"):
        opened = open_image(tmp_path / name)
        assert opened.dtype == np.bool_
        np.testing.assert_array_equal(opened.values, mask)


def test_a_jpeg_of_four_inks_is_read_in_its_colours(tmp_path: Path) -> None:
    smooth = np.repeat(np.repeat(RGB[:5, :5], 16, 0), 16, 1)
    Image.fromarray(smooth).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    opened = open_image(tmp_path / "a.jpg")
    assert opened["channel"].values.tolist() == ["red", "green", "blue"]
    assert np.abs(opened.values.astype(int) - smooth).mean() < 2


def test_four_channels_are_no_picture_unless_the_last_one_is_transparency(tmp_path: Path) -> None:
    image = xr.DataArray(RGBA, dims=("y", "x", "channel"))
    with pytest.raises(ImageError, match="a PNG takes y, x, or those with 3 channels"):
        write_image(image, tmp_path / "a.png")
    named = image.assign_coords(channel=["red", "green", "blue", "alpha"])
    path = write_image(named, tmp_path / "a.png")
    np.testing.assert_array_equal(open_image(path, channels=["alpha"]).values[..., 0], RGBA[..., 3])
