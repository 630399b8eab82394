"""Physical pixel sizes and resampling: against scikit-image, and any region against the whole."""

import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5 as spec
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from packages_for_tests import build_package, small_unet
from skimage.transform import resize

from im2im_zoo.core.errors import PlanError
from im2im_zoo.images import open_image, write_image
from im2im_zoo.package import Package, open_package
from im2im_zoo.runtime.rescale import (
    READING_BYTES,
    ResampledSource,
    model_pixel_size_um,
    pixel_size_warning,
    resample_by,
    resample_to,
    rescale_factors,
)


def noise(*shape: int, dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def image_of(voxels: NDArray[Any], **pixel_size_um: float) -> xr.DataArray:
    dims = ("channel", "z", "y", "x")[-voxels.ndim :]
    return xr.DataArray(voxels, dims=dims, attrs={"source": "scan.tif", "pixel_size_um": pixel_size_um})


def declaring(folder: Path, **axes: tuple[float, str | None]) -> Package:
    """A package whose input declares a scale and a unit along some axes."""
    path = build_package(folder / "package", small_unet(levels=1))
    package = open_package(path)
    for axis in package.inputs[0].axes:
        if str(axis.id) in axes and isinstance(axis, spec.SpaceInputAxis):
            axis.scale, axis.unit = axes[str(axis.id)]  # type: ignore[assignment]
    return package


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((40, 33), (61, 50)),
        ((40, 33), (20, 11)),
        ((17, 40, 33), (9, 61, 20)),
        ((64, 50), (13, 100)),
        ((1, 9), (4, 2)),
        ((6, 100), (6, 7)),
    ],
)
def test_resampling_is_that_of_scikit_image(shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    image = image_of(noise(*shape))
    result = resample_to(image, dict(zip(map(str, image.dims), sizes, strict=True)))
    expected = resize(
        image.values.astype(float),
        sizes,
        order=1,
        mode="symmetric",
        anti_aliasing=True,
        preserve_range=True,
        clip=False,
    )
    assert result.shape == sizes
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.values, expected, rtol=0, atol=1e-6)


def test_integers_are_scikit_images_rounded() -> None:
    image = image_of(noise(50, 41, dtype="uint16"))
    result = resample_to(image, {"y": 33, "x": 77})
    expected = resize(
        image.values.astype(float),
        (33, 77),
        order=1,
        mode="symmetric",
        anti_aliasing=True,
        preserve_range=True,
    )
    assert result.dtype == np.uint16
    assert np.abs(result.values - expected).max() <= 0.5 + 1e-6


sizes = st.integers(1, 30)


@given(
    st.data(),
    sizes,
    sizes,
    sizes,
    sizes,
    sizes,
    sizes,
    st.sampled_from(["float32", "uint8", "int64"]),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_region_is_bit_for_bit_that_of_the_whole(
    data: st.DataObject, z: int, y: int, x: int, to_z: int, to_y: int, to_x: int, dtype: str, labels: bool
) -> None:
    lazy = resample_to(
        image_of(noise(z, y, x, dtype=dtype)), {"z": to_z, "y": to_y, "x": to_x}, labels=labels
    )
    whole = lazy.values
    region = {}
    for axis, size in zip("zyx", (to_z, to_y, to_x), strict=True):
        start = data.draw(st.integers(0, size - 1))
        region[axis] = slice(start, data.draw(st.integers(start, size)), data.draw(st.integers(1, 3)))
    wanted = whole[tuple(region.values())]
    assert lazy.isel(region).values.tobytes() == wanted.tobytes()
    assert lazy.isel(y=to_y - 1).values.tobytes() == whole[:, to_y - 1].tobytes()


@pytest.mark.parametrize("factor", [0.3, 0.5, 1.7])
def test_a_region_does_not_depend_on_how_much_is_read_at_once(factor: float) -> None:
    image = image_of(noise(9, 70, 60))
    whole = resample_by(image, {"z": 2.0, "y": factor, "x": factor})
    source = ResampledSource(image, whole.shape, labels=False, box_voxels=500)
    region = source.read(tuple(slice(0, n) for n in whole.shape))
    assert region.tobytes() == whole.values.tobytes()


def test_a_constant_image_stays_exactly_constant() -> None:
    for value in (0.1, 60000.0):
        image = image_of(np.full((31, 17), value, np.float32))
        result = resample_by(image, {"y": 0.3, "x": 1.9}).values
        np.testing.assert_array_equal(result, np.float32(value))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint64", "int64"])
def test_extreme_integers_do_not_wrap_around(dtype: str) -> None:
    limits = np.iinfo(dtype)
    image = image_of(np.array([[limits.min] * 6 + [limits.max] * 6], dtype).repeat(4, axis=0))
    result = resample_by(image, {"x": 3.0, "y": 0.5}).values
    spacing = 2.0**-52 * float(limits.max)
    assert result.dtype == np.dtype(dtype)
    assert abs(int(result[0, 0]) - limits.min) <= spacing
    assert abs(int(result[0, -1]) - limits.max) <= spacing
    assert (np.diff(result[0].astype(object)) >= 0).all()


@pytest.mark.parametrize("size", [5, 7, 12, 40])
def test_labels_keep_their_values_and_their_place(size: int) -> None:
    labels = np.arange(12, dtype=np.uint32)[None] + 2**31
    result = resample_to(image_of(labels), {"x": size}, labels=True)
    assert result.dtype == np.uint32
    expected = [labels[0, int((i + 0.5) * 12 / size)] for i in range(size)]
    np.testing.assert_array_equal(result.values[0], expected)


def test_booleans_are_labels() -> None:
    mask = np.zeros((4, 4), bool)
    mask[2:] = True
    result = resample_by(image_of(mask), {"y": 2.0, "x": 0.5})
    assert result.dtype == bool
    np.testing.assert_array_equal(result.values, np.repeat(mask, 2, axis=0)[:, :2])


def test_there_and_back_gives_a_smooth_image_again() -> None:
    y, x = np.mgrid[:96, :80]
    image = image_of((np.sin(y / 9) * np.cos(x / 11)).astype(np.float32), y=0.3, x=0.3)
    back = resample_to(resample_by(image, {"y": 0.61, "x": 1.7}), {"y": 96, "x": 80})
    assert back.attrs["pixel_size_um"] == {"y": 0.3, "x": 0.3}
    # Shrinking smooths by half a voxel, and more is lost at the borders, where the mirrored image has a kink.
    assert np.abs((back - image).values[4:-4, 4:-4]).max() < 0.02


def test_an_objects_centre_stays_at_its_place_in_micrometres() -> None:
    image = image_of(np.exp(-((np.arange(60.0)[None] - 21.3) ** 2) / 30).astype(np.float32), x=0.5)
    image.attrs["translation_um"] = {"x": 100.0, "y": 3.0}
    expected = 100.0 + 0.5 * 21.3
    for factor in (0.5, 0.73, 2.0):
        result = resample_by(image, {"x": factor})
        profile = result.values[0].astype(float)
        at = result.attrs["translation_um"]["x"] + result.attrs["pixel_size_um"]["x"] * np.arange(
            len(profile)
        )
        assert (profile * at).sum() / profile.sum() == pytest.approx(expected, abs=0.01)
        assert result.attrs["translation_um"]["y"] == 3.0


def test_the_extent_the_source_and_the_channels_are_kept() -> None:
    image = image_of(noise(2, 5, 10, 10), z=2.0, y=0.4, x=0.4).assign_coords(channel=["dna", "membrane"])
    result = resample_by(image, {"z": 2.0, "y": 0.33})
    assert dict(result.sizes) == {"channel": 2, "z": 10, "y": 3, "x": 10}
    assert result.attrs["pixel_size_um"] == pytest.approx({"z": 1.0, "y": 4 / 3, "x": 0.4})
    assert result.attrs["source"] == "scan.tif"
    assert list(result["channel"].values) == ["dna", "membrane"]
    assert image.attrs["pixel_size_um"]["z"] == 2.0


def test_a_shrunk_image_never_loses_all_its_voxels() -> None:
    assert resample_by(image_of(noise(1, 8)), {"y": 0.2, "x": 0.01}).shape == (1, 1)


def test_an_image_of_the_same_size_is_itself() -> None:
    image = image_of(noise(9, 8))
    assert resample_by(image, {"y": 1.0, "x": 1.01}) is image


def test_a_voxel_without_weight_is_not_looked_at() -> None:
    image = image_of(np.array([[1, np.nan, 3, np.inf, 5]], np.float32))
    result = resample_by(image, {"x": 3.0}).values[0]
    assert np.isnan(result[2:7]).all()
    np.testing.assert_array_equal(result[[0, 1, 7, 13]], [1, 1, 3, 5])


def test_an_image_in_a_file_is_resampled_without_reading_all_of_it(tmp_path: Path) -> None:
    side = 4096
    path = tmp_path / "image.ome.zarr"
    write_image(image_of(np.broadcast_to(np.arange(side, dtype=np.uint16), (side, side)), y=0.2, x=0.2), path)
    lazy = resample_by(open_image(path), {"y": 0.25, "x": 0.25})
    travelled = pickle.loads(pickle.dumps(lazy))
    tracemalloc.start()
    region = travelled.isel(y=slice(300, 340), x=slice(0, 40)).values
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert region.shape == (40, 40)
    assert np.abs(region[:, 5:] - (np.arange(5, 40) * 4 + 1.5)).max() <= 0.5
    # Some chunks of 1024 x 1024, not the 4096 x 4096 voxels.
    assert taken < side * side


def test_reading_the_whole_stays_within_what_is_promised() -> None:
    lazy = resample_by(image_of(noise(3000, 3000, dtype="float64")), {"y": 0.5, "x": 0.4})
    tracemalloc.start()
    size = lazy.values.nbytes
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert taken - size < READING_BYTES + 2**20


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"y": (0.2, "micrometer"), "x": (200.0, "nanometer")}, {"y": 0.2, "x": 0.2}),
        ({"y": (0.2, None), "x": (1.0, None)}, {}),
        ({"y": (0.2, "micrometer")}, {"y": 0.2}),
        ({"x": (1.0, "micrometer")}, {"x": 1.0}),
        ({"x": (3.0, "parsec")}, {"x": 3 * 3.0856775814913673e22}),
    ],
)
def test_a_package_declares_what_has_a_unit_of_length(
    axes: dict[str, tuple[float, str | None]], expected: dict[str, float], tmp_path: Path
) -> None:
    assert model_pixel_size_um(declaring(tmp_path, **axes)) == pytest.approx(expected)


def test_a_pixel_size_far_from_the_declared_one_is_said_with_both_numbers(tmp_path: Path) -> None:
    package = declaring(tmp_path, y=(0.2, "micrometer"), x=(0.2, "micrometer"))
    for size in (0.26, 0.15):
        text = pixel_size_warning(package, image_of(noise(8, 8), y=0.2, x=size))
        assert text is not None
        assert f"x {size}" in text
        assert "x 0.2" in text
        assert "--rescale" in text


@pytest.mark.parametrize("sizes_um", [{"y": 0.2, "x": 0.2}, {"y": 0.245, "x": 0.165}, {}, {"z": 5.0}])
def test_no_warning_where_pixel_sizes_are_alike_or_not_known(
    sizes_um: dict[str, float], tmp_path: Path
) -> None:
    package = declaring(tmp_path, y=(0.2, "micrometer"), x=(0.2, "micrometer"))
    assert pixel_size_warning(package, image_of(noise(4, 8, 8), **sizes_um)) is None


def test_rescaling_by_the_factors_gives_the_models_pixel_size(tmp_path: Path) -> None:
    package = declaring(tmp_path, y=(0.2, "micrometer"), x=(0.4, "micrometer"))
    image = image_of(noise(5, 40, 60), z=1.0, y=0.3, x=0.1)
    factors = rescale_factors(package, image)
    assert factors == pytest.approx({"y": 1.5, "x": 0.25})
    assert resample_by(image, factors).attrs["pixel_size_um"] == pytest.approx({"z": 1.0, "y": 0.2, "x": 0.4})


@pytest.mark.parametrize(
    ("declared", "own", "words"),
    [
        ({}, {"y": 0.3}, "does not declare the pixel size"),
        ({"y": (0.2, "micrometer")}, {}, "scan.tif does not state its pixel size"),
        ({"y": (0.2, "micrometer")}, {"x": 0.3}, "states it along x and 'Small test model' along y"),
    ],
)
def test_rescaling_without_pixel_sizes_is_refused_with_who_lacks_them(
    declared: dict[str, tuple[float, str]], own: dict[str, float], words: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=words):
        rescale_factors(declaring(tmp_path, **declared), image_of(noise(8, 8), **own))


@pytest.mark.parametrize(
    ("factors", "words"), [({"z": 2.0}, "'z'"), ({"y": 0.0}, "above 0"), ({"y": float("nan")}, "above 0")]
)
def test_factors_that_cannot_be_are_refused(factors: dict[str, float], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        resample_by(image_of(noise(8, 8)), factors)
