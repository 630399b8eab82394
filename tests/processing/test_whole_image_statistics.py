"""Statistics: exact as numpy's, the same for any block size and chunking, and never reading more than a block."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import block_shape, regions, walk
from im2im_zoo.processing.checkpoint import NOT_KEPT, State
from im2im_zoo.processing.moments import mean_and_std
from im2im_zoo.processing.quantiles import quantiles
from im2im_zoo.processing.sources import Source

DIMS = ("channel", "y", "x")
AXES = st.sampled_from([("y", "x"), ("channel", "y", "x"), ("x",), ("channel",), ("y",), ("channel", "x")])
DTYPES = st.sampled_from(
    ["bool", "uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"]
)


def source(values: NDArray[Any], chunks: dict[str, int] | None = None) -> Source:
    image = xr.DataArray(values, dims=DIMS, name="raw")
    image.encoding["preferred_chunks"] = chunks or {}
    return Source(image, lambda x: x)


@st.composite
def images(draw: st.DrawFn, dtypes: st.SearchStrategy[str] = DTYPES) -> NDArray[Any]:
    dtype = np.dtype(draw(dtypes))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)))
    finite = {"allow_nan": False, "allow_infinity": False} if dtype.kind == "f" else {}
    if dtype.kind == "f":
        # A range whose differences and squares stay finite, as those of any image do.
        finite |= (
            {"min_value": -1e18, "max_value": 1e18}
            if dtype == np.float64
            else {"min_value": -(2.0**60), "max_value": 2.0**60}
        )
    return draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, **finite)))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("block_bytes", [2**26, 3000])
@pytest.mark.parametrize("axes", [("y", "x"), ("channel", "y", "x")])
def test_percentiles_are_numpys_to_the_last_bit(dtype: str, block_bytes: int, axes: tuple[str, ...]) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(100, 40, (2, 37, 53)).clip(0, 255).astype(dtype)
    fractions = [0.0, 0.003, 0.01, 0.25, 0.5, 0.9, 99.8 / 100, 1.0]
    axis = tuple(DIMS.index(a) for a in axes)
    for method in ("linear", "inverted_cdf"):
        got = quantiles([source(values)], axes, fractions, method=method, block_bytes=block_bytes)
        expected = np.quantile(values, fractions, axis=axis, method=method)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_array_equal(ours.to_numpy(), theirs)


@settings(deadline=None, max_examples=100)
@given(images(), AXES, st.integers(100, 20_000), st.floats(0, 1), st.floats(0, 1))
def test_percentiles_do_not_depend_on_the_block_size(
    values: NDArray[Any], axes: tuple[str, ...], block_bytes: int, low: float, high: float
) -> None:
    whole = quantiles([source(values)], axes, [low, high], method="linear", block_bytes=2**26)
    cut = quantiles([source(values)], axes, [low, high], method="linear", block_bytes=block_bytes)
    axis = tuple(DIMS.index(a) for a in axes)
    for ours, theirs, fraction in zip(whole, cut, [low, high], strict=True):
        np.testing.assert_array_equal(ours, theirs)
        if values.dtype.kind in "uf":
            np.testing.assert_array_equal(ours, np.quantile(values, np.float64(fraction), axis=axis))


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 90),
    st.integers(1, 90),
    AXES,
    st.integers(30_000, 1_000_000),
    st.integers(1, 50),
)
def test_mean_and_std_have_the_same_bits_for_any_block_size_and_chunking(
    seed: int, height: int, width: int, axes: tuple[str, ...], block_bytes: int, chunk: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.gamma(1.5, 300, (2, height, width)).astype(np.float32)
    whole = mean_and_std([source(values)], axes, block_bytes=2**26)
    cut = mean_and_std([source(values, {"y": chunk, "x": chunk})], axes, block_bytes=block_bytes)
    axis = tuple(DIMS.index(a) for a in axes)
    for ours, theirs in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(whole[0], values.mean(axis, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(whole[1], values.std(axis, dtype=np.float64), rtol=1e-9, atol=1e-9)


def test_the_spread_far_from_zero_survives() -> None:
    rng = np.random.default_rng(4)
    values = 1e9 + rng.normal(0, 1, (1, 200, 300))
    mean, std = mean_and_std([source(values)], DIMS, block_bytes=50_000)
    np.testing.assert_allclose(std, (values - 1e9).std(), rtol=1e-8)
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-15)


def test_bricks_grow_where_an_image_has_too_many() -> None:
    values = np.random.default_rng(5).normal(5, 2, (3, 150, 170))
    mean, std = mean_and_std([source(values)], DIMS, block_bytes=1000, max_bricks=4)
    np.testing.assert_allclose([mean, std], [values.mean(), values.std()], rtol=1e-12)


def test_real_nuclei_have_numpys_statistics(nuclei_3d: tuple[np.ndarray, np.ndarray]) -> None:
    image = Source(xr.DataArray(nuclei_3d[0], dims=("z", "y", "x")), lambda x: x)
    mean, std = mean_and_std([image], ("y", "x"), block_bytes=20_000)
    wide = nuclei_3d[0].astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean((1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, wide.std((1, 2)), rtol=1e-12)
    (low,) = quantiles([image], ("z", "y", "x"), [0.05], method="linear", block_bytes=20_000)
    assert low == np.quantile(nuclei_3d[0], 0.05)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_no_read_is_larger_than_a_block(lazy: Any, dtype: str) -> None:
    values = np.random.default_rng(6).normal(500, 80, (2, 512, 640)).astype(dtype)
    block_bytes = 200_000
    image, reads = lazy(values, DIMS, {"y": 64, "x": 64})
    mean_and_std([Source(image, lambda x: x)], DIMS, block_bytes=block_bytes)
    assert sum(reads.sizes) == values.nbytes, "every voxel is read once for mean and standard deviation"
    quantiles([Source(image, lambda x: x)], DIMS, [0.01, 0.99], method="linear", block_bytes=block_bytes)
    assert max(reads.sizes) <= block_bytes // 4
    assert max(reads.sizes) > block_bytes // 10, "blocks are as large as they may be"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_the_memory_that_statistics_take_stays_below_the_bound(lazy: Any, dtype: str) -> None:
    block_bytes = 5 * 2**20
    rows = 2**11 // np.dtype(dtype).itemsize
    values = np.random.default_rng(7).integers(0, 255, (2, rows, 2048)).astype(dtype)
    image, _ = lazy(values, DIMS)
    for measure in (
        lambda s: mean_and_std([s], DIMS, block_bytes=block_bytes),
        lambda s: quantiles([s], DIMS, [0.01, 0.99], method="linear", block_bytes=block_bytes),
    ):
        tracemalloc.start()
        measure(Source(image, lambda x: x))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= block_bytes < values.nbytes


def test_statistics_without_a_space_axis_are_refused_when_they_are_as_large_as_the_image() -> None:
    # One value in memory, seen at every place: 4097 x 4097 are more than 2**24.
    large = source(np.broadcast_to(np.ones(()), (2, 4097, 4097)))
    with pytest.raises(ProcessingError, match=r"16785409 values, more than 16777216: add space axes"):
        mean_and_std([large], ("channel",), block_bytes=1000)


def test_images_of_a_dataset_must_agree_on_the_axes_that_stay() -> None:
    with pytest.raises(ProcessingError, match="cannot share statistics"):
        mean_and_std([source(np.ones((2, 4, 4))), source(np.ones((3, 4, 4)))], ("y", "x"), block_bytes=1000)


@settings(deadline=None, max_examples=50)
@given(
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    st.integers(1, 3000),
    st.dictionaries(st.sampled_from(DIMS), st.integers(1, 5)),
    st.dictionaries(st.sampled_from(DIMS), st.integers(1, 8)),
)
def test_a_walk_gives_every_voxel_once_on_multiples_of_the_grain(
    shape: tuple[int, ...], block_bytes: int, grain: dict[str, int], chunks: dict[str, int]
) -> None:
    values = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    image = source(values, chunks).image
    seen = np.zeros(shape, dtype=int)
    for start, piece in walk(image, block_bytes=block_bytes, grain=grain):
        at = tuple(slice(start[a], start[a] + piece.sizes[a]) for a in DIMS)
        np.testing.assert_array_equal(piece, values[at])
        seen[at] += 1
        for a in DIMS:
            assert start[a] % grain.get(a, 1) == 0
            assert piece.coords[a].to_numpy().tolist() == list(
                range(at[DIMS.index(a)].start, at[DIMS.index(a)].stop)
            )
    assert (seen == 1).all()


@given(st.integers(1, 500), st.integers(1, 500), st.integers(1, 10_000), st.integers(1, 100))
def test_a_block_stays_below_its_limit(height: int, width: int, voxels: int, chunk: int) -> None:
    shape = block_shape({"y": height, "x": width}, voxels, units={"y": chunk, "x": chunk})
    assert shape["y"] * shape["x"] <= voxels
    assert sum(1 for _ in regions({"y": height, "x": width}, shape)) >= 1


class Stopped(Exception):
    """What stops a walk."""


class InMemory:
    """A checkpoint that keeps every state."""

    def __init__(self) -> None:
        self.state: dict[str, NDArray[Any]] | None = None

    def load(self) -> State | None:
        return None if self.state is None else {name: np.copy(array) for name, array in self.state.items()}

    def save(self, state: Callable[[], State]) -> None:
        self.state = {name: np.copy(array) for name, array in state().items()}


@settings(deadline=None, max_examples=60)
@given(images(), AXES, st.integers(100, 6000), st.lists(st.integers(0, 12), max_size=6), st.floats(0, 1))
def test_a_walk_that_is_stopped_goes_on_to_the_same_bits_and_walks_nothing_twice(
    values: NDArray[Any], axes: tuple[str, ...], block_bytes: int, stops: list[int], fraction: float
) -> None:
    walked: list[int] = []

    def until(stop: int | None) -> Source:
        left = [stop]

        def transform(piece: xr.DataArray) -> xr.DataArray:
            if left[0] is not None:
                if left[0] == 0:
                    raise Stopped
                left[0] -= 1
            walked.append(piece.size)
            return piece

        return Source(source(values).image, transform)

    def both(of: Source, kept: tuple[Any, Any]) -> tuple[Any, ...]:
        found = mean_and_std([of], axes, block_bytes=block_bytes, checkpoint=kept[0])
        one = quantiles(
            [of], axes, [fraction, 0.5], method="linear", block_bytes=block_bytes, checkpoint=kept[1]
        )
        return (*found, *one)

    unbroken = both(until(None), (NOT_KEPT, NOT_KEPT))
    once = len(walked)
    walked.clear()
    checkpoints = InMemory(), InMemory()
    times = 0
    for stop in stops:
        try:
            both(until(stop), checkpoints)
        except Stopped:
            times += 1
    resumed = both(until(None), checkpoints)
    for ours, theirs in zip(resumed, unbroken, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if times == len(stops) and checkpoints[1].state is not None:
        # Beside the walk: one voxel that tells the dtype, and the few groups that were walked since a checkpoint.
        assert len(walked) <= once + 2 * times
