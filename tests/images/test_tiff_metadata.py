"""Pixel sizes and names in TIFFs as other programs write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import open_image, pixel_size_um

PLANES = np.arange(2 * 3 * 20 * 30, dtype=np.uint16).reshape(3, 2, 20, 30)


def imagej(path: Path, **metadata: Any) -> Path:
    """A hyperstack of 3 planes and 2 channels with 4 pixels per unit in x, and 5 in y."""
    tifffile.imwrite(path, PLANES, imagej=True, resolution=(4, 5), metadata={"axes": "ZCYX", **metadata})
    return path


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("micron", 1), ("um", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("cm", 1e4), ("microns", 1)],
)
def test_imagej_sizes_are_converted_from_their_unit(tmp_path: Path, unit: str, factor: float) -> None:
    opened = open_image(imagej(tmp_path / "a.tif", unit=unit, spacing=1.5))
    assert opened.dims == ("z", "channel", "y", "x")
    assert pixel_size_um(opened) == pytest.approx({"z": 1.5 * factor, "y": 0.2 * factor, "x": 0.25 * factor})


@pytest.mark.parametrize("unit", ["pixel", "", "furlong", None])
def test_imagej_sizes_without_a_length_unit_are_unknown(tmp_path: Path, unit: str | None) -> None:
    metadata = {"spacing": 1.5} if unit is None else {"unit": unit, "spacing": 1.5}
    assert pixel_size_um(open_image(imagej(tmp_path / "a.tif", **metadata))) == {}


def test_printing_resolution_shown_by_imagej_in_inches_is_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", PLANES[0, 0], imagej=True, resolution=(72, 72), metadata={"unit": "inch"}
    )
    assert pixel_size_um(open_image(tmp_path / "a.tif")) == {}


def test_imagej_labels_name_channels_only_if_all_planes_agree(tmp_path: Path) -> None:
    agreeing = imagej(tmp_path / "a.tif", Labels=["DAPI", "GFP"] * 3)
    differing = imagej(tmp_path / "b.tif", Labels=[f"slice {i}" for i in range(6)])
    assert open_image(agreeing)["channel"].values.tolist() == ["DAPI", "GFP"]
    assert "channel" not in open_image(differing).coords


def test_imagej_frame_interval_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, imagej=True, metadata={"axes": "TCYX", "finterval": 250, "tunit": "ms"})
    assert open_image(path).attrs["time_step_s"] == 0.25


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("µm", 1), ("nm", 1e-3), ("mm", 1e3), ("Å", 1e-4), ("in", 25400), (None, 1), ("pixel", None)],
)
def test_ome_sizes_are_converted_from_their_unit(
    tmp_path: Path, unit: str | None, factor: float | None
) -> None:
    metadata: dict[str, Any] = {"axes": "ZCYX"}
    for axis, size in (("X", 0.25), ("Y", 0.2), ("Z", 1.5)):
        metadata[f"PhysicalSize{axis}"] = size
        if unit is not None:
            metadata[f"PhysicalSize{axis}Unit"] = unit
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES, metadata=metadata, photometric="minisblack")
    expected = {} if factor is None else {"z": 1.5 * factor, "y": 0.2 * factor, "x": 0.25 * factor}
    assert pixel_size_um(open_image(tmp_path / "a.ome.tif")) == pytest.approx(expected)


def test_ome_names_and_time_steps_are_read(tmp_path: Path) -> None:
    metadata = {
        "axes": "TCYX",
        "Channel": {"Name": ["405", "1e5"]},
        "TimeIncrement": 2,
        "TimeIncrementUnit": "min",
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANES, metadata=metadata, photometric="minisblack")
    opened = open_image(tmp_path / "a.ome.tif")
    assert opened["channel"].values.tolist() == ["405", "1e5"]
    assert opened.attrs["time_step_s"] == 120


def test_resolution_tags_count_only_if_they_can_be_a_microscopes(tmp_path: Path) -> None:
    for name, per_cm, expected in (("a.tif", 40000, {"y": 0.25, "x": 0.25}), ("b.tif", 118.11, {})):
        tifffile.imwrite(
            tmp_path / name, PLANES[0, 0], resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
        )
        assert pixel_size_um(open_image(tmp_path / name)) == pytest.approx(expected)


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_every_layout_reads_the_same_region(
    tmp_path: Path, compression: str | None, tile: tuple[int, int] | None, byteorder: str
) -> None:
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path,
        PLANES,
        compression=compression,
        tile=tile,
        byteorder=byteorder,  # type: ignore[arg-type]
        metadata={"axes": "ZCYX"},
        photometric="minisblack",
    )
    region = open_image(path).isel(z=slice(1, 3), channel=1, y=slice(5, 18), x=7)
    assert region.dtype.isnative
    np.testing.assert_array_equal(region.values, PLANES[1:3, 1, 5:18, 7])


def test_a_pyramid_opens_at_full_resolution(tmp_path: Path) -> None:
    plane = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tif:
        tif.write(plane, subifds=1, tile=(16, 16), compression="zlib", metadata={"axes": "YX"})
        tif.write(plane[::2, ::2], subfiletype=1, tile=(16, 16), compression="zlib")
    np.testing.assert_array_equal(open_image(tmp_path / "a.ome.tif").values, plane)


def test_one_of_several_images_must_be_named(tmp_path: Path) -> None:
    path = tmp_path / "wells.ome.tif"
    with tifffile.TiffWriter(path) as tif:
        for value in (1, 2):
            tif.write(np.full((20, 30), value, np.uint8), metadata={"axes": "YX", "PhysicalSizeX": value})
    with pytest.raises(ImageError, match=r"2 images.*wells.ome.tif#0"):
        open_image(path)
    second = open_image(f"{path}#1")
    assert int(second[0, 0]) == 2
    assert pixel_size_um(second) == {"x": 2.0}
    with pytest.raises(ImageError, match="no image 2"):
        open_image(f"{path}#2")


def test_a_thumbnail_beside_the_image_does_not_count(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "slide.tif") as tif:
        tif.write(np.ones((64, 64), np.uint8))
        tif.write(np.zeros((16, 16), np.uint8))
    assert open_image(tmp_path / "slide.tif").shape == (64, 64)


def test_imagej_reads_the_sizes_that_are_written(tmp_path: Path) -> None:
    from im2im_zoo.images import create_image

    path = tmp_path / "out.tif"
    with create_image(
        path, axes="zcyx", shape=(3, 2, 20, 30), dtype="uint16", pixel_size_um={"z": 1.5, "y": 0.2, "x": 0.25}
    ) as writer:
        writer.write({}, PLANES)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_imagej
        assert tif.imagej_metadata is not None
        assert {k: tif.imagej_metadata[k] for k in ("slices", "channels", "unit", "spacing")} == {
            "slices": 3,
            "channels": 2,
            "unit": "um",
            "spacing": 1.5,
        }
        assert tif.pages.first.tags["XResolution"].value == (4, 1)
        assert tif.pages.first.tags["ResolutionUnit"].value == 1
        np.testing.assert_array_equal(tif.asarray(), PLANES)
