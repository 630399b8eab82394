"""What is written comes back the same: voxels, axes, pixel sizes, names."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images import create_image, open_image, pixel_size_um, write_image

SUFFIXES = (".ome.zarr", ".ome.tif", ".tif", ".npy")
SIZES = {"z": 0.5, "y": 0.1, "x": 0.12}
NAMES = ["DAPI", "b & <c>", "größe"]


@pytest.fixture
def five_axes() -> xr.DataArray:
    """A time series of stacks with three channels, with everything that a file can say of it."""
    voxels = np.random.default_rng(0).integers(0, 60000, (2, 3, 4, 30, 41)).astype(np.uint16)
    return xr.DataArray(
        voxels,
        dims=("time", "channel", "z", "y", "x"),
        coords={"channel": NAMES},
        attrs={"pixel_size_um": SIZES, "time_step_s": 2.5, "im2im_zoo": {"package": "nuclei", "version": 3}},
    )


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "int32", "float16", "float32", "float64", "int64"]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxels_and_dtype_return(tmp_path: Path, five_axes: xr.DataArray, suffix: str, dtype: str) -> None:
    image, path = five_axes.astype(dtype), tmp_path / f"image{suffix}"
    if suffix == ".ome.tif" and dtype in ("float16", "int64"):
        with pytest.raises(ImageError, match="OME-TIFF has no"):
            write_image(image, path)
        return
    assert write_image(image, path) == path
    opened = open_image(path, axes="tczyx" if suffix == ".npy" else None)
    assert opened.dtype == dtype
    np.testing.assert_array_equal(opened.transpose(*image.dims).values, image.values)


@pytest.mark.parametrize(
    ("suffix", "dtype"),
    [
        (suffix, dtype)
        for suffix in (".ome.zarr", ".zarr", ".ome.tif", ".ome.tiff", ".tif", ".tiff")
        for dtype in ("uint16", "float64", "int64")
        if not (".ome.tif" in suffix and dtype == "int64")  # which OME-TIFF has not
    ],
)
def test_sizes_names_times_and_provenance_return(
    tmp_path: Path, five_axes: xr.DataArray, suffix: str, dtype: str
) -> None:
    opened = open_image(write_image(five_axes.astype(dtype), tmp_path / f"image{suffix}"))
    assert pixel_size_um(opened) == pytest.approx(SIZES, rel=1e-6)
    assert opened.attrs["time_step_s"] == 2.5
    assert opened["channel"].values.tolist() == NAMES
    assert opened.attrs["im2im_zoo"] == {"package": "nuclei", "version": 3}
    assert opened.attrs["source"] == str(tmp_path / f"image{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "czyx", "zcyx", "tyx"])
def test_fewer_axes_in_any_order_return(tmp_path: Path, suffix: str, axes: str) -> None:
    sizes = {"t": 2, "c": 3, "z": 4, "y": 20, "x": 33}
    voxels = np.random.default_rng(1).random([sizes[a] for a in axes], np.float32)
    with create_image(
        tmp_path / f"image{suffix}", axes=list(axes), shape=voxels.shape, dtype="float32"
    ) as writer:
        writer.write({}, voxels)
    opened = open_image(tmp_path / f"image{suffix}", axes=axes if suffix == ".npy" else None)
    names = {"t": "time", "c": "channel", "z": "z", "y": "y", "x": "x"}
    np.testing.assert_array_equal(opened.transpose(*(names[a] for a in axes)).values, voxels)
    assert pixel_size_um(opened) == {}
    assert "channel" not in opened.coords


def test_bool_stays_bool_in_ome_zarr_and_npy_and_becomes_0_and_1_in_tiff(tmp_path: Path) -> None:
    mask = xr.DataArray(np.eye(20, dtype=bool), dims=("y", "x"))
    for name, dtype in (
        ("m.ome.zarr", "bool"),
        ("m.npy", "bool"),
        ("m.tif", "uint8"),
        ("m.ome.tif", "uint8"),
    ):
        opened = open_image(write_image(mask, tmp_path / name))
        assert opened.dtype == dtype
        np.testing.assert_array_equal(opened.values, mask.values)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_returns_grey_and_colours_in_8_and_16_bits(
    tmp_path: Path, shape: tuple[int, ...], dtype: str
) -> None:
    voxels = np.random.default_rng(2).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    image = xr.DataArray(voxels, dims=("y", "x", "channel")[: len(shape)])
    opened = open_image(write_image(image, tmp_path / "image.png"))
    assert opened.dims == image.dims
    assert opened.dtype == dtype
    np.testing.assert_array_equal(opened.values, voxels)


def test_png_takes_channels_from_any_place(tmp_path: Path) -> None:
    voxels = np.random.default_rng(2).integers(0, 255, (3, 20, 30)).astype(np.uint8)
    path = write_image(xr.DataArray(voxels, dims=("channel", "y", "x")), tmp_path / "image.png")
    np.testing.assert_array_equal(open_image(path).transpose("channel", "y", "x").values, voxels)


def test_a_real_image_crosses_all_formats_unchanged(
    tmp_path: Path, nuclei_3d: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    image = xr.DataArray(nuclei_3d[0], dims=("z", "y", "x"), attrs={"pixel_size_um": SIZES})
    for suffix in (".ome.tif", ".ome.zarr", ".tif"):
        image = open_image(write_image(image, tmp_path / f"nuclei{suffix}"))
        assert pixel_size_um(image) == pytest.approx(SIZES, rel=1e-6)
    np.testing.assert_array_equal(image.values, nuclei_3d[0])


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_an_image_can_be_sent_to_another_process(tmp_path: Path, suffix: str) -> None:
    voxels = np.arange(600, dtype=np.uint16).reshape(20, 30)
    opened = open_image(write_image(xr.DataArray(voxels, dims=("y", "x")), tmp_path / f"image{suffix}"))
    assert opened[3, 4] == voxels[3, 4]
    sent = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(sent[5:7, ::3].values, voxels[5:7, ::3])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_regions_in_any_order_make_the_image(tmp_path: Path, data: st.DataObject) -> None:
    axes = data.draw(st.permutations(["channel", "z", "y", "x"]), "axes")
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * 4), "shape")
    suffix = data.draw(st.sampled_from(SUFFIXES), "suffix")
    cuts = [sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=2), "cuts")}) for n in shape]
    spans = [[slice(a, b) for a, b in itertools.pairwise(c)] for c in cuts]
    regions = [(p, q, r, s) for p in spans[0] for q in spans[1] for r in spans[2] for s in spans[3]]
    voxels = np.random.default_rng(3).integers(0, 1000, shape).astype(np.uint16)
    path = tmp_path / f"image{suffix}"
    chunks = data.draw(st.none() | st.tuples(*[st.integers(1, 6)] * 4), "chunks")
    with create_image(path, axes=axes, shape=shape, dtype="uint16", chunks=chunks, overwrite=True) as writer:
        for region in data.draw(st.permutations(regions), "order"):
            writer.write(dict(zip(axes, region, strict=True)), voxels[region])
    # tifffile leaves out axes of length 1, which the declared axes bring back.
    opened = open_image(path, axes=_stored_axes(suffix, axes, voxels.shape[axes.index("x")]))
    np.testing.assert_array_equal(opened.transpose(*axes).values, voxels)


def _stored_axes(suffix: str, axes: list[str], width: int) -> str | None:
    """Axes in the file's order: ImageJ's own, except for a line of voxels, which it does not get."""
    letters = "".join(a[0] for a in axes)
    return {".npy": letters, ".ome.tif": "czyx", ".tif": "zcyx" if width > 1 else "czyx"}.get(suffix)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_kind_of_index_reads_what_numpy_reads(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([*SUFFIXES, "expanded"]))
    voxels = np.arange(5 * 7 * 11, dtype=np.uint16).reshape(5, 7, 11)
    path = tmp_path / ("image.ome.tif" if suffix == "expanded" else f"image{suffix}")
    if not path.exists():
        write_image(xr.DataArray(voxels, dims=("z", "y", "x")), path)
    if suffix == "expanded":
        voxels = voxels[:, None]
    opened = open_image(path, axes="zcyx" if suffix == "expanded" else "zyx")
    key = tuple(
        data.draw(
            st.slices(n)
            | st.integers(-n, n - 1)
            | st.lists(st.integers(0, n - 1), min_size=1, max_size=4).map(np.array)
        )
        for n in voxels.shape
    )
    expected = voxels
    for axis, k in reversed(list(enumerate(key))):
        expected = expected[(slice(None),) * axis + (k,)]
    np.testing.assert_array_equal(opened[key].values, expected)
