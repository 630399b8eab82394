"""Levels and chunks: each voxel of a level is the mean of the block it stands for."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from im2im_zoo.images import create_image, open_image, write_image
from im2im_zoo.images.formats.ome_zarr.pyramid import default_chunks, halve, levels


def block_mean(array: np.ndarray, step: tuple[int, ...]) -> np.ndarray:
    """The mean of each block, one block at a time."""
    out = np.empty([-(-n // s) for n, s in zip(array.shape, step, strict=True)])
    for index in np.ndindex(*out.shape):
        out[index] = array[tuple(slice(i * s, i * s + s) for i, s in zip(index, step, strict=True))].mean(
            dtype=float
        )
    return out


@given(
    array=hnp.arrays(
        st.sampled_from([np.uint8, np.uint16, np.int32]),
        hnp.array_shapes(min_dims=3, max_dims=3, max_side=7),
        elements=st.integers(0, 200),
    ),
    step=st.tuples(*[st.sampled_from([1, 2])] * 3),
)
def test_a_voxel_is_the_rounded_mean_of_its_block(array: np.ndarray, step: tuple[int, ...]) -> None:
    reduced = halve(array, step, average=True)
    assert reduced.dtype == array.dtype
    assert np.abs(reduced - block_mean(array, step)).max() <= 0.5


def test_the_largest_values_do_not_overflow() -> None:
    for dtype in (np.uint8, np.uint16, np.int16, np.uint32, np.int32):
        for value in (np.iinfo(dtype).max, np.iinfo(dtype).min):
            assert (halve(np.full((4, 4, 4), value, dtype), (2, 2, 2), average=True) == value).all()


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_levels_of_odd_sizes_are_block_means_across_chunks(tmp_path, version: str, dtype: str) -> None:
    voxels = np.random.default_rng(0).random((1, 7, 301, 523)) * 1000
    image = voxels.astype(dtype)
    path = tmp_path / "a.ome.zarr"
    writer = create_image(
        path,
        axes="czyx",
        shape=image.shape,
        dtype=dtype,
        pixel_size_um={"z": 0.2, "y": 0.2, "x": 0.2},
        chunks=(1, 4, 150, 170),
        ome_zarr_version=version,
    )
    with writer:
        writer.write({}, image)
    expected = image
    for level in (1, 2):
        expected = block_mean(expected, (1, 2, 2, 2))
        if dtype == "uint16":
            expected = np.rint(expected)
        reduced = open_image(path / str(level)).values
        np.testing.assert_allclose(reduced, expected, rtol=1e-5, atol=1 if dtype == "uint16" else 0)
        expected = reduced
    assert not (path / "3").exists()


def test_levels_stop_when_they_are_small() -> None:
    found = levels(("y", "x"), (1000, 5000), {})
    assert [level.shape for level in found] == [
        (1000, 5000),
        (500, 2500),
        (250, 1250),
        (125, 625),
        (63, 313),
        (32, 157),
    ]
    assert len(levels(("z", "y", "x"), (900, 256, 256), {})) == 1


@pytest.mark.parametrize(
    ("sizes", "depths"),
    [
        ({"z": 1, "y": 1, "x": 1}, [40, 20, 10]),
        ({"z": 2, "y": 1, "x": 1}, [40, 40, 20]),
        ({"z": 9, "y": 1, "x": 1}, [40, 40, 40]),
        ({}, [40, 40, 40]),
    ],
)
def test_depth_is_halved_only_where_its_step_is_known_to_be_alike(sizes, depths: list[int]) -> None:
    assert [level.shape[0] for level in levels(("z", "y", "x"), (40, 1000, 1000), sizes)] == depths


@given(
    shape=st.tuples(*[st.integers(1, 5000)] * 5),
    itemsize=st.sampled_from([1, 2, 4, 8]),
)
def test_chunks_are_at_most_4_mb_and_within_the_image(shape: tuple[int, ...], itemsize: int) -> None:
    chunks = default_chunks(("time", "channel", "z", "y", "x"), shape, itemsize)
    assert chunks[:2] == (1, 1)
    assert np.prod(chunks) * itemsize <= 4 * 2**20
    assert all(1 <= c <= n for c, n in zip(chunks, shape, strict=True))


@pytest.mark.parametrize(
    ("shape", "itemsize", "chunks"),
    [
        ((1, 9999, 9999), 1, (1, 1024, 1024)),
        ((1, 9999, 9999), 4, (1, 1024, 1024)),
        ((500, 999, 999), 1, (128, 128, 128)),
        ((500, 999, 999), 2, (128, 128, 128)),
        ((500, 999, 999), 4, (64, 128, 128)),
        ((500, 999, 999), 8, (64, 64, 64)),
        ((13, 999, 999), 2, (13, 256, 256)),
    ],
)
def test_chunks_of_usual_images(shape: tuple[int, ...], itemsize: int, chunks: tuple[int, ...]) -> None:
    assert default_chunks(("z", "y", "x"), shape, itemsize) == chunks


def test_a_mask_stays_a_mask_at_every_level(tmp_path) -> None:
    mask = xr.DataArray(np.random.default_rng(0).random((600, 600)) > 0.5, dims=("y", "x"))
    path = write_image(mask, tmp_path / "a.zarr")
    np.testing.assert_array_equal(open_image(path / "1").values, mask.values[::2, ::2])


def test_an_image_with_nothing_finite_still_gets_a_window(tmp_path) -> None:
    image = xr.DataArray(np.full((4, 5), np.nan, np.float32), dims=("y", "x"))
    assert np.isnan(open_image(write_image(image, tmp_path / "a.zarr")).values).all()
