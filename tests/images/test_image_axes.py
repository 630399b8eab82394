"""Axes and channels: what the file says, what has to be declared, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import xarray as xr

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import open_image, pixel_size_um, write_image
from im2im_zoo.images.registry import image_suffixes


def stack(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)


def test_unknown_axes_must_be_declared(tmp_path: Path) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack(5, 20, 30), photometric="minisblack")
    with pytest.raises(AxesError, match=r"stack.tif.*\(5, 20, 30\).*declare.*--axes zyx"):
        open_image(path)
    assert open_image(path, axes="tyx").dims == ("time", "y", "x")


def test_npy_needs_axes_unless_it_is_a_plane(tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", stack(4, 5))
    np.save(tmp_path / "stack.npy", np.asfortranarray(stack(3, 4, 5)))
    assert open_image(tmp_path / "plane.npy").dims == ("y", "x")
    with pytest.raises(AxesError, match=r"\(3, 4, 5\)"):
        open_image(tmp_path / "stack.npy")
    opened = open_image(tmp_path / "stack.npy", axes="czyx"[1:])
    np.testing.assert_array_equal(opened[1:, ::2].values, stack(3, 4, 5)[1:, ::2])


def test_declared_axes_win_over_stated_ones(tmp_path: Path) -> None:
    path = tmp_path / "stack.ome.tif"
    image = xr.DataArray(
        stack(4, 20, 30), dims=("z", "y", "x"), attrs={"pixel_size_um": {"z": 2, "y": 1, "x": 1}}
    )
    write_image(image, path)
    opened = open_image(path, axes="cyx")
    assert opened.dims == ("channel", "y", "x")
    assert pixel_size_um(opened) == {"y": 1.0, "x": 1.0}


def test_axis_names_are_not_kept_for_an_axis_that_was_declared_to_be_another(tmp_path: Path) -> None:
    path = tmp_path / "image.ome.tif"
    names = {"channel": ["a", "b", "c", "d"]}
    write_image(xr.DataArray(stack(4, 20, 30), dims=("channel", "y", "x"), coords=names), path)
    assert "channel" not in open_image(path, axes="zyx").coords
    assert "channel" not in open_image(path, axes="zcx").coords


@pytest.mark.parametrize("axes", ["yx", "czyx"])
def test_axes_of_another_number_are_refused_with_the_shape_and_both(tmp_path: Path, axes: str) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack(5, 20, 30), metadata={"axes": "ZYX"}, photometric="minisblack")
    with pytest.raises(AxesError, match=rf"stack.tif.*'{axes}'.*\(5, 20, 30\).*'zyx'"):
        open_image(path, axes=axes)


def test_a_batch_axis_and_unknown_letters_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", stack(3, 4, 5))
    for axes in ("byx", "qyx", "yyx"):
        with pytest.raises(AxesError):
            open_image(tmp_path / "a.npy", axes=axes)


def test_axes_of_length_one_that_ome_tiff_states_come_back_when_declared(tmp_path: Path) -> None:
    path = tmp_path / "plane.ome.tif"
    image = xr.DataArray(stack(1, 20, 30), dims=("channel", "y", "x"))
    write_image(image, path)
    assert open_image(path).dims == ("y", "x")
    opened = open_image(path, axes="zcyx")
    assert opened.sizes == {"z": 1, "channel": 1, "y": 20, "x": 30}
    np.testing.assert_array_equal(opened[0].values, image.values)


@pytest.mark.parametrize("contiguous", ["contig", "separate"])
def test_samples_of_rgb_are_channels(tmp_path: Path, contiguous: str) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    stored = rgb if contiguous == "contig" else np.moveaxis(rgb, -1, 0)
    tifffile.imwrite(tmp_path / "rgb.tif", stored, photometric="rgb", planarconfig=contiguous)
    opened = open_image(tmp_path / "rgb.tif")
    np.testing.assert_array_equal(opened.transpose("y", "x", "channel").values, rgb)


def test_jpeg_and_palette_png_open_as_colours(tmp_path: Path) -> None:
    from PIL import Image

    picture = Image.fromarray(np.full((20, 30, 3), (200, 100, 50), np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95)
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    for name in ("a.jpg", "a.png"):
        opened = open_image(tmp_path / name)
        assert opened.sizes == {"y": 20, "x": 30, "channel": 3}
        assert opened["channel"].values.tolist() == ["red", "green", "blue"]
        assert abs(opened.values.astype(int) - (200, 100, 50)).max() <= 3


@pytest.fixture
def named(tmp_path: Path) -> Path:
    image = xr.DataArray(
        stack(3, 20, 30), dims=("channel", "y", "x"), coords={"channel": ["DAPI", "GFP", "RFP"]}
    )
    return write_image(image, tmp_path / "named.ome.zarr")


def test_channels_are_chosen_by_name_or_index_in_the_order_given(named: Path) -> None:
    opened = open_image(named, channels=["RFP", 0])
    assert opened["channel"].values.tolist() == ["RFP", "DAPI"]
    np.testing.assert_array_equal(opened.values, stack(3, 20, 30)[[2, 0]])
    assert open_image(named, channels=["1"])["channel"].values.tolist() == ["GFP"]


@pytest.mark.parametrize("channel", ["CFP", 3, -1])
def test_a_channel_that_is_not_there_is_refused_with_those_that_are(named: Path, channel: int | str) -> None:
    with pytest.raises(ImageError, match=r"named.ome.zarr.*'DAPI', 'GFP', 'RFP'.*0 to 2"):
        open_image(named, channels=[channel])


def test_channels_of_an_image_without_them_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "plane.npy", stack(4, 5))
    with pytest.raises(AxesError, match="no channel axis"):
        open_image(tmp_path / "plane.npy", channels=[0])


def test_suffixes_that_are_written_can_be_read() -> None:
    suffixes = image_suffixes()
    assert set(suffixes.writable) <= set(suffixes.readable)
    assert {".ome.zarr", ".tif", ".npy", ".jpg"} <= set(suffixes.readable)


@pytest.mark.parametrize("dims", [("channel", "y", "x"), ("time", "channel", "z", "y", "x")])
@pytest.mark.parametrize("ending", [".ome.tif", ".ome.zarr"])
def test_a_single_channel_that_has_a_name_keeps_its_axis(tmp_path: Path, dims, ending) -> None:
    sizes = {"time": 3, "channel": 1, "z": 4, "y": 20, "x": 30}
    image = xr.DataArray(stack(*(sizes[d] for d in dims)), dims=dims, coords={"channel": ["dna"]})
    opened = open_image(write_image(image, tmp_path / f"named{ending}"))
    assert opened.dims == dims
    assert list(opened.channel.values) == ["dna"]
    np.testing.assert_array_equal(opened.values, image.values)
    write_image(image.drop_vars("channel"), tmp_path / "nameless.ome.tif")
    assert "channel" not in open_image(tmp_path / "nameless.ome.tif").dims


def test_a_single_number_is_no_image(tmp_path: Path) -> None:
    np.save(tmp_path / "number.npy", np.float32(3))
    with pytest.raises(ImageError, match="a single number"):
        open_image(tmp_path / "number.npy")
