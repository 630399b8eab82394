"""Units of lengths and times, as files spell them."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from im2im_zoo.images import open_image, pixel_size_um, write_image
from im2im_zoo.images.metadata import micrometres, seconds

# UnitsLength and UnitsTime of OME-XML 2016-06, without those that are no length: pixel, reference frame.
OME_METRES = {
    "Ym": 1e24, "Zm": 1e21, "Em": 1e18, "Pm": 1e15, "Tm": 1e12, "Gm": 1e9, "Mm": 1e6, "km": 1e3, "hm": 1e2, "dam": 10, "m": 1,
    "dm": 0.1, "cm": 1e-2, "mm": 1e-3, "µm": 1e-6, "nm": 1e-9, "pm": 1e-12, "fm": 1e-15, "am": 1e-18, "zm": 1e-21, "ym": 1e-24,
    "Å": 1e-10, "thou": 2.54e-5, "li": 2.1166666667e-3, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "mi": 1609.344,
    "ua": 1.495978707e11, "ly": 9.4607304725808e15, "pc": 3.0856775815e16, "pt": 3.5277777778e-4,
}  # fmt: skip
OME_SECONDS = {
    "Ys": 1e24, "Zs": 1e21, "Es": 1e18, "Ps": 1e15, "Ts": 1e12, "Gs": 1e9, "Ms": 1e6, "ks": 1e3, "hs": 1e2, "das": 10, "s": 1,
    "ds": 0.1, "cs": 1e-2, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9, "ps": 1e-12, "fs": 1e-15, "as": 1e-18, "zs": 1e-21, "ys": 1e-24,
    "min": 60, "h": 3600, "d": 86400,
}  # fmt: skip
# Units that OME-Zarr recommends, beside metre and second with prefixes.
NGFF_METRES = {
    "angstrom": 1e-10,
    "foot": 0.3048,
    "inch": 0.0254,
    "mile": 1609.344,
    "parsec": 3.0856775815e16,
    "yard": 0.9144,
}
PREFIXES = {"atto": -18, "centi": -2, "deci": -1, "exa": 18, "femto": -15, "giga": 9, "hecto": 2, "kilo": 3, "mega": 6, "micro": -6,
            "milli": -3, "nano": -9, "peta": 15, "pico": -12, "tera": 12, "yocto": -24, "yotta": 24, "zepto": -21, "zetta": 21}  # fmt: skip


@pytest.mark.parametrize(("unit", "metres"), [*OME_METRES.items(), *NGFF_METRES.items()])
def test_every_length_is_converted(unit: str, metres: float) -> None:
    assert micrometres(2, unit) == pytest.approx(2e6 * metres)


@pytest.mark.parametrize(("unit", "expected"), OME_SECONDS.items())
def test_every_time_is_converted(unit: str, expected: float) -> None:
    assert seconds(2, unit) == pytest.approx(2 * expected)


@pytest.mark.parametrize(("prefix", "power"), PREFIXES.items())
def test_every_prefix_of_ome_zarr_is_converted(prefix: str, power: int) -> None:
    assert micrometres(1, f"{prefix}meter") == pytest.approx(10.0 ** (power + 6))
    assert seconds(1, f"{prefix}second") == pytest.approx(10.0**power)


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong", "", None])
def test_what_is_no_length_is_unknown(unit: str | None) -> None:
    assert micrometres(1, unit) is None


def test_imagej_has_a_unit_for_each_axis(tmp_path: Path) -> None:
    metadata = {"axes": "ZYX", "unit": "um", "yunit": "nm", "zunit": "mm", "spacing": 0.002}
    voxels = np.zeros((3, 20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", voxels, imagej=True, resolution=(4, 0.005), metadata=metadata)
    assert pixel_size_um(open_image(tmp_path / "a.tif")) == pytest.approx({"z": 2, "y": 0.2, "x": 0.25})


@pytest.mark.parametrize(("unit", "size"), [(2, 25400 / 5e4), (3, 1e4 / 5e4), (4, 1e3 / 5e4), (5, 1 / 5e4)])
def test_every_unit_of_the_resolution_tags_is_converted(unit: int, size: float, tmp_path: Path) -> None:
    voxels = np.zeros((20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", voxels, resolution=(5e4, 5e4), resolutionunit=unit, metadata=None)
    assert pixel_size_um(open_image(tmp_path / "a.tif")) == pytest.approx({"y": size, "x": size})


def test_a_large_pixel_is_believed_in_millimetres_only(tmp_path: Path) -> None:
    voxels = np.zeros((20, 30), np.uint16)
    for name, unit, per_unit in (("cm", 3, 200), ("mm", 4, 20)):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, voxels, resolution=(per_unit, per_unit), resolutionunit=unit, metadata=None)
    assert pixel_size_um(open_image(tmp_path / "cm.tif")) == {}
    assert pixel_size_um(open_image(tmp_path / "mm.tif")) == {"y": 50, "x": 50}


def pyramid(path: Path) -> tuple[Path, np.ndarray]:
    import xarray as xr

    voxels = np.random.default_rng(0).integers(0, 255, (1200, 1300), np.uint8)
    image = xr.DataArray(voxels, dims=("y", "x"), attrs={"pixel_size_um": {"y": 0.5, "x": 0.5}})
    return write_image(image, path), voxels


def edited(path: Path, change) -> None:  # type: ignore[no-untyped-def]
    import json

    file = path / "zarr.json"
    document = json.loads(file.read_text())
    change(document["attributes"]["ome"]["multiscales"][0])
    file.write_text(json.dumps(document))


@pytest.mark.parametrize("with_scales", [True, False])
def test_levels_are_read_in_any_order(with_scales: bool, tmp_path: Path) -> None:
    path, voxels = pyramid(tmp_path / "a.ome.zarr")

    def change(multiscale: dict) -> None:
        assert len(multiscale["datasets"]) > 1
        multiscale["datasets"].reverse()
        if not with_scales:
            for dataset in multiscale["datasets"]:
                del dataset["coordinateTransformations"]

    edited(path, change)
    opened = open_image(path)
    np.testing.assert_array_equal(opened.values, voxels)
    assert pixel_size_um(opened) == ({"y": 0.5, "x": 0.5} if with_scales else {})


def test_a_level_without_a_scale_has_no_pixel_size(tmp_path: Path) -> None:
    path, _ = pyramid(tmp_path / "a.ome.zarr")

    def change(multiscale: dict) -> None:
        del multiscale["datasets"][1]["coordinateTransformations"]

    edited(path, change)
    assert pixel_size_um(open_image(path)) == {"y": 0.5, "x": 0.5}
    assert pixel_size_um(open_image(path / "1")) == {}
