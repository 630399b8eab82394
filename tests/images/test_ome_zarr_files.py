"""OME-Zarr: valid by the specification's models, read at any level, and refused where there is no one image."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from ome_zarr_models import open_ome_zarr
from ome_zarr_models.v04.image import Image as Image04
from ome_zarr_models.v05.image import Image as Image05

from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images import create_image, open_image, pixel_size_um, write_image

SIZES = {"z": 0.4, "y": 0.1, "x": 0.12}
VERSIONS = ("0.4", "0.5")
SMALL = {"y": 4, "x": 5}


def written(path: Path, version: str, shape: tuple[int, ...] = (2, 3, 5, 300, 530), **more: Any) -> Path:
    image = xr.DataArray(
        np.random.default_rng(0).integers(100, 4000, shape).astype(np.uint16),
        dims=("time", "channel", "z", "y", "x"),
        coords={"channel": ["DAPI", "GFP", "RFP"]},
        attrs={"pixel_size_um": SIZES, "time_step_s": 30.0, "im2im_zoo": {"package": "p"}},
    )
    return write_image(image, path, ome_zarr_version=version, **more)


def metadata(path: Path, version: str) -> dict[str, Any]:
    if version == "0.4":
        return json.loads((path / ".zattrs").read_text())
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_models_of_the_specification_accept_it(tmp_path: Path, version: str) -> None:
    group = open_ome_zarr(
        zarr.open_group(written(tmp_path / "a.ome.zarr", version), mode="r"), version=version
    )
    assert isinstance(group, Image04 if version == "0.4" else Image05)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("axes", ["yx", "cyx", "zyx", "tyx", "xyzct"])
def test_fewer_axes_and_unknown_sizes_are_accepted_too(tmp_path: Path, version: str, axes: str) -> None:
    shape = [{"t": 2, "c": 2, "z": 3, "y": 20, "x": 30}[a] for a in axes]
    path = tmp_path / "a.zarr"
    with create_image(path, axes=axes, shape=shape, dtype="float32", ome_zarr_version=version) as writer:
        writer.write({}, np.ones(shape, np.float32))
    assert isinstance(open_ome_zarr(path, version=version), Image04 if version == "0.4" else Image05)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", VERSIONS)
def test_labels_are_valid_marked_and_never_averaged(tmp_path: Path, version: str) -> None:
    labels = np.random.default_rng(0).integers(0, 2**40, (600, 600))
    path = write_image(
        xr.DataArray(labels, dims=("y", "x")), tmp_path / "l.ome.zarr", labels=True, ome_zarr_version=version
    )
    assert type(open_ome_zarr(path, version=version)).__name__ == "ImageLabel"  # type: ignore[arg-type]
    assert "image-label" in metadata(path, version)
    assert set(np.unique(open_image(path / "1").values)) <= set(np.unique(labels))
    np.testing.assert_array_equal(open_image(path / "2").values, labels[::4, ::4])


@pytest.mark.parametrize("version", VERSIONS)
def test_axes_units_and_levels_are_described(tmp_path: Path, version: str) -> None:
    multiscale = metadata(written(tmp_path / "cells.ome.zarr", version), version)["multiscales"][0]
    assert multiscale["name"] == "cells"
    assert [(a["name"], a["type"], a.get("unit")) for a in multiscale["axes"]] == [
        ("t", "time", "second"),
        ("c", "channel", None),
        ("z", "space", "micrometer"),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    first, second, third = multiscale["datasets"]
    assert first["coordinateTransformations"] == [{"type": "scale", "scale": [30.0, 1, 0.4, 0.1, 0.12]}]
    assert second["coordinateTransformations"] == [
        {"type": "scale", "scale": [30.0, 1, 0.4, 0.2, 0.24]},
        {"type": "translation", "translation": [0, 0, 0, 0.05, 0.06]},
    ]
    # z is halved with y and x only once their step has come near its own.
    assert third["coordinateTransformations"][0]["scale"] == [30.0, 1, 0.4, 0.4, 0.48]


@pytest.mark.parametrize("version", VERSIONS)
def test_channels_have_names_colours_and_windows_that_show_them(tmp_path: Path, version: str) -> None:
    channels = metadata(written(tmp_path / "a.zarr", version), version)["omero"]["channels"]
    assert [c["label"] for c in channels] == ["DAPI", "GFP", "RFP"]
    assert len({c["color"] for c in channels}) == 3
    for channel in channels:
        window = channel["window"]
        assert (window["min"], window["max"]) == (0, 65535)
        assert 100 <= window["start"] < window["end"] <= 4000


def test_zarr_3_names_its_dimensions_and_zarr_2_separates_by_slashes(tmp_path: Path) -> None:
    new, old = written(tmp_path / "a.zarr", "0.5"), written(tmp_path / "b.zarr", "0.4")
    assert json.loads((new / "0/zarr.json").read_text())["dimension_names"] == ["t", "c", "z", "y", "x"]
    assert json.loads((old / "0/.zarray").read_text())["dimension_separator"] == "/"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_level_opens_with_its_own_pixel_size_and_position(tmp_path: Path, version: str) -> None:
    path = written(tmp_path / "a.ome.zarr", version)
    whole, level = open_image(path), open_image(path / "1")
    assert pixel_size_um(whole) == SIZES
    assert "translation_um" not in whole.attrs
    assert level.dims == whole.dims
    assert level.shape == (2, 3, 5, 150, 265)
    assert pixel_size_um(level) == pytest.approx({"z": 0.4, "y": 0.2, "x": 0.24})
    assert level.attrs["translation_um"] == pytest.approx({"y": 0.05, "x": 0.06})
    assert level["channel"].values.tolist() == ["DAPI", "GFP", "RFP"]
    assert level.attrs["time_step_s"] == 30.0


def test_units_and_transformations_of_the_whole_multiscale_count(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("full", shape=(4, 5), dtype="uint8")
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": n, "type": "space", "unit": "nanometer"} for n in "yx"],
            "datasets": [
                {
                    "path": "full",
                    "coordinateTransformations": [
                        {"type": "scale", "scale": [2, 3]},
                        {"type": "translation", "translation": [10, 0]},
                    ],
                }
            ],
            "coordinateTransformations": [{"type": "scale", "scale": [100, 100]}],
        }
    ]
    opened = open_image(tmp_path / "a.zarr")
    assert pixel_size_um(opened) == pytest.approx({"y": 0.2, "x": 0.3})
    assert opened.attrs["translation_um"] == pytest.approx({"y": 1.0})


@pytest.mark.parametrize(("axes", "expected"), [(None, "tczyx"), (["z", "y", "x"], "zyx")])
def test_axes_of_versions_before_0_4_are_known(tmp_path: Path, axes: list[str] | None, expected: str) -> None:
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", shape=(2,) * len(expected), dtype="uint8")
    group.attrs["multiscales"] = [{"datasets": [{"path": "0"}], **({"axes": axes} if axes else {})}]
    opened = open_image(tmp_path / "a.zarr")
    assert "".join(str(d)[0] for d in opened.dims) == expected
    assert pixel_size_um(opened) == {}


def test_a_channel_axis_of_any_name_is_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zarr", "0.5")
    attributes = json.loads((path / "zarr.json").read_text())
    attributes["attributes"]["ome"]["multiscales"][0]["axes"][1]["name"] = "stain"
    (path / "zarr.json").write_text(json.dumps(attributes))
    assert open_image(path).dims[1] == "channel"


def test_a_plain_array_needs_axes_unless_its_dimensions_are_named(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "plain.zarr", shape=(3, 4, 5), dtype="uint8", chunks=(1, 4, 5))
    with pytest.raises(AxesError, match=r"\(3, 4, 5\)"):
        open_image(tmp_path / "plain.zarr")
    assert open_image(tmp_path / "plain.zarr", axes="zyx").dims == ("z", "y", "x")
    zarr.create_array(
        tmp_path / "named.zarr", shape=(3, 4, 5), dtype="uint8", dimension_names=["c", "y", "x"]
    )
    assert open_image(tmp_path / "named.zarr").dims == ("channel", "y", "x")


def test_a_plate_is_refused_with_its_images(tmp_path: Path) -> None:
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "A/1"}, {"path": "B/2"}]}
    for well in ("A/1", "B/2"):
        plate.create_group(well).attrs["well"] = {"images": [{"path": "0"}, {"path": "1"}]}
    with pytest.raises(ImageError, match=r"plate of wells.*plate.zarr/A/1/0.*plate.zarr/B/2/1"):
        open_image(tmp_path / "plate.zarr")
    with pytest.raises(ImageError, match=r"well of a plate.*A/1/0"):
        open_image(tmp_path / "plate.zarr/A/1")


def test_a_container_is_refused_with_its_images(tmp_path: Path) -> None:
    container = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=2)
    container.attrs["bioformats2raw.layout"] = 3
    for name in ("0", "1"):
        write_image(xr.DataArray(np.ones((4, 5)), dims=("y", "x")), tmp_path / f"c.zarr/{name}.zarr")
    with pytest.raises(ImageError, match=r"several images.*c.zarr/0.zarr, .*c.zarr/1.zarr"):
        open_image(tmp_path / "c.zarr")


def test_a_group_of_labels_is_refused_with_its_images_and_one_of_them_opens(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zarr", "0.5")
    labels = zarr.open_group(path / "labels", mode="w", zarr_format=3)
    labels.attrs["ome"] = {"labels": ["nuclei"]}
    mask = xr.DataArray(np.ones((4, 5), np.uint8), dims=("y", "x"))
    write_image(mask, path / "labels/nuclei.zarr", labels=True)
    (path / "labels/nuclei.zarr").rename(path / "labels/nuclei")
    with pytest.raises(ImageError, match=r"label images.*labels/nuclei"):
        open_image(path / "labels")
    assert open_image(path / "labels/nuclei").sizes == SMALL


def test_an_empty_group_is_refused(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w")
    with pytest.raises(ImageError, match="no image is within"):
        open_image(tmp_path / "a.zarr")


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"'0.3'.*0.4, 0.5"):
        create_image(tmp_path / "a.zarr", axes="yx", shape=(4, 5), dtype="uint8", ome_zarr_version="0.3")
