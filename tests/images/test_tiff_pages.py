"""TIFFs that hold a stack page by page, and OME-TIFFs whose channels have samples."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import open_image

STACK = np.random.default_rng(0).integers(0, 2**16, (5, 40, 48), np.uint16)
COLOURS = np.random.default_rng(1).integers(0, 2**8, (2, 40, 48, 3), np.uint8)


def written_page_by_page(path: Path, planes: Any = STACK, **options: Any) -> Path:
    with tifffile.TiffWriter(path) as writer:
        for plane in planes:
            writer.write(plane, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "tile": (16, 16)}], ids=["raw", "tiled"])
def test_a_stack_of_one_page_a_series_is_read_whole(options: Any, tmp_path: Path) -> None:
    opened = open_image(written_page_by_page(tmp_path / "a.tif", **options), axes="zyx")
    np.testing.assert_array_equal(opened.values, STACK)
    part = opened[1:4:2, 3:30, 17:]
    np.testing.assert_array_equal(part.values, STACK[1:4:2, 3:30, 17:])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(opened)).values, STACK)


def test_a_stack_of_colour_pages_is_read_with_declared_axes(tmp_path: Path) -> None:
    path = written_page_by_page(tmp_path / "a.tif", COLOURS, photometric="rgb")
    np.testing.assert_array_equal(open_image(path, axes="zyxc").values, COLOURS)


def test_a_stack_of_pages_says_what_it_is_and_what_to_declare(tmp_path: Path) -> None:
    path = written_page_by_page(tmp_path / "a.tif")
    with pytest.raises(AxesError, match="holds 5 images of 40 x 48") as told:
        open_image(path)
    assert "page by page" in str(told.value)
    assert "--axes zyx (planes of a stack), tyx (time points), cyx (channels)" in str(told.value)
    assert "'a.tif#0'" in str(told.value)
    np.testing.assert_array_equal(open_image(f"{path}#3").values, STACK[3])


def test_series_that_differ_are_no_stack(tmp_path: Path) -> None:
    path = written_page_by_page(tmp_path / "a.tif", [STACK[0], STACK[1, :39]])
    with pytest.raises(ImageError, match="holds 2 images"):
        open_image(path, axes="zyx")


def test_images_of_an_ome_tiff_are_no_stack(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        for plane in STACK[:2]:
            writer.write(plane)
    with pytest.raises(ImageError, match="holds 2 images"):
        open_image(tmp_path / "a.ome.tif", axes="zyx")


@pytest.fixture
def cyxs(tmp_path: Path) -> Path:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, COLOURS, ome=True, photometric="rgb", metadata={"axes": "CYXS"})
    return path


def test_channels_with_samples_are_named_with_a_way_to_choose(cyxs: Path) -> None:
    with pytest.raises(AxesError, match="its OME-XML says CYXS: 2 channels") as told:
        open_image(cyxs)
    assert "3 samples (S), as of RGB" in str(told.value)
    assert "--channels" in str(told.value)
    assert "counted from 0 to 5" in str(told.value)
    assert "zyx" not in str(told.value)


def test_samples_of_channels_are_chosen_by_number_and_name(cyxs: Path) -> None:
    merged = COLOURS.transpose(0, 3, 1, 2).reshape(6, 40, 48)
    chosen = open_image(cyxs, channels=[5, 0, "1 green"])
    np.testing.assert_array_equal(chosen.values, merged[[5, 0, 4]])
    np.testing.assert_array_equal(chosen[1:, 3:9, ::2].values, merged[[0, 4], 3:9, ::2])
    np.testing.assert_array_equal(open_image(cyxs, axes="cyx").values, merged)


def test_samples_before_other_axes_are_merged_too(tmp_path: Path) -> None:
    path = tmp_path / "b.ome.tif"
    stack = np.random.default_rng(2).integers(0, 255, (2, 4, 20, 30, 3), np.uint8)
    tifffile.imwrite(path, stack, ome=True, photometric="rgb", metadata={"axes": "CZYXS"})
    opened = open_image(path, axes="czyx")
    np.testing.assert_array_equal(opened.values, np.moveaxis(stack, -1, 1).reshape(6, 4, 20, 30))
    np.testing.assert_array_equal(
        opened[2:5, 1].values, np.moveaxis(stack, -1, 1).reshape(6, 4, 20, 30)[2:5, 1]
    )


def test_an_unknown_axis_is_named_by_what_the_file_calls_it(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata={"axes": "AYX"}, photometric="minisblack")
    with pytest.raises(AxesError, match=r"the file states the axes A \(angle\)"):
        open_image(tmp_path / "a.tif")
