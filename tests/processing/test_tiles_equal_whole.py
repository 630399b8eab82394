"""A pipeline gives a tile the same bits as the whole image, wherever the tile is cut."""

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing import Operation, Pipeline, fit

ADAPTER: TypeAdapter[Operation] = TypeAdapter(Operation)
DIMS = ("channel", "z", "y", "x")


def op(id: str, **kwargs: object) -> Operation:
    return ADAPTER.validate_python({"id": id} if id == "sigmoid" else {"id": id, "kwargs": kwargs})


def axes_lists() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(DIMS), min_size=1, max_size=4, unique=True)


def operations() -> st.SearchStrategy[Operation]:
    """Any operation of the spec with any axes, on tensors of 2 channels."""
    return st.one_of(
        st.just(op("sigmoid")),
        st.just(op("softmax", axis="channel")),
        st.just(op("clip", min=-1.0, max=400.0)),
        st.just(op("scale_linear", gain=[0.37, 1.9], offset=[1.0, -3.0], axis="channel")),
        st.just(op("fixed_zero_mean_unit_variance", mean=[90.1, 55.5], std=[3.3, 7.7], axis="channel")),
        st.just(op("binarize", threshold=[0.1, 120.0], axis="channel")),
        st.sampled_from(["uint8", "int16", "uint16", "float32", "float64"]).map(
            lambda d: op("ensure_dtype", dtype=d)
        ),
        axes_lists().map(lambda a: op("zero_mean_unit_variance", axes=a)),
        axes_lists().map(lambda a: op("scale_range", axes=a, min_percentile=3, max_percentile=97.3)),
        axes_lists().map(lambda a: op("clip", min_percentile=1, max_percentile=95, axes=a)),
        axes_lists().map(lambda a: op("scale_mean_variance", reference_tensor="input", axes=a)),
    )


def image(seed: int, dtype: str) -> xr.DataArray:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 60.0, (2, 5, 17, 23)).astype(dtype)
    return xr.DataArray(values, dims=DIMS, name="raw")


def with_positions(tensor: xr.DataArray) -> xr.DataArray:
    return tensor.assign_coords({a: np.arange(tensor.sizes[a]) for a in tensor.dims})


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["uint8", "uint16", "float32", "float64"]),
    st.lists(operations(), min_size=1, max_size=4),
    st.tuples(*(st.integers(0, n - 1) for n in (5, 17, 23))),
    st.tuples(*(st.integers(1, n) for n in (5, 17, 23))),
    st.integers(8000, 200_000),
)
def test_a_tile_has_the_bits_of_the_whole(
    seed: int,
    dtype: str,
    chain: list[Operation],
    start: tuple[int, ...],
    size: tuple[int, ...],
    block_bytes: int,
) -> None:
    raw = image(seed, dtype)
    pipeline = fit(chain, raw, references={"input": image(seed + 1, "uint16")})
    whole = pipeline(raw)
    cut = {a: slice(s, s + n) for a, s, n in zip("zyx", start, size, strict=True)}
    tile = pipeline(with_positions(raw).isel(cut))
    assert tile.dtype == whole.dtype
    np.testing.assert_array_equal(tile.to_numpy(), whole.isel(cut).to_numpy())
    again = fit(chain, raw, references={"input": image(seed + 1, "uint16")}, block_bytes=block_bytes)(raw)
    np.testing.assert_array_equal(again.to_numpy(), whole.to_numpy(), "the block size changes nothing")


@pytest.mark.parametrize("order", [("x", "y", "z", "channel"), ("y", "channel", "x", "z")])
def test_the_order_of_axes_changes_no_value(order: tuple[str, ...]) -> None:
    raw = image(7, "uint16")
    chain = [op("zero_mean_unit_variance", axes=["y", "x"]), op("sigmoid"), op("softmax", axis="channel")]
    pipeline = fit(chain, raw)
    turned = pipeline(raw.transpose(*order))
    assert turned.dims == order
    np.testing.assert_array_equal(turned.transpose(*DIMS).to_numpy(), pipeline(raw).to_numpy())


def test_a_batch_axis_may_be_added_to_tiles() -> None:
    raw = image(8, "uint16")
    pipeline = fit([op("scale_range", axes=["z", "y", "x"])], raw)
    batch = pipeline(xr.concat([raw, raw + 1], "batch"))
    np.testing.assert_array_equal(batch.isel(batch=0).to_numpy(), pipeline(raw).to_numpy())


def test_a_statistic_along_a_cut_axis_needs_the_tiles_position() -> None:
    raw = image(9, "float32")
    pipeline = fit([op("zero_mean_unit_variance", axes=["channel", "y", "x"])], raw)
    with pytest.raises(ProcessingError, match=r"vary along axis 'z' .* integer coordinate 'z'"):
        pipeline(raw.isel(z=slice(1, 3)))
    placed = raw.isel(z=[3, 3, 2]).assign_coords(z=[3, 3, 2])
    np.testing.assert_array_equal(pipeline(placed).to_numpy(), pipeline(raw).isel(z=[3, 3, 2]).to_numpy())


def test_a_position_outside_the_image_is_refused() -> None:
    raw = image(9, "float32")
    pipeline = fit([op("zero_mean_unit_variance", axes=["channel", "y", "x"])], raw)
    with pytest.raises(ProcessingError, match=r"positions \[-1, 5\] along axis 'z'.*0 to 4"):
        pipeline(raw.isel(z=slice(0, 3)).assign_coords(z=[-1, 0, 5]))


def test_channel_names_are_not_positions() -> None:
    raw = image(10, "uint16")
    pipeline = fit([op("scale_range", axes=["z", "y", "x"])], raw)
    named = raw.assign_coords(channel=["DNA", "DNA"])
    np.testing.assert_array_equal(pipeline(named).to_numpy(), pipeline(raw).to_numpy())


def test_softmax_along_a_space_axis_refuses_a_cut_and_says_so_beforehand() -> None:
    raw = image(11, "float32")
    pipeline = fit([op("softmax", axis="y"), op("scale_range", axes=list(DIMS))], raw, block_bytes=3000)
    assert pipeline.whole_axes == {"y"}
    assert not pipeline.is_pointwise
    np.testing.assert_allclose(pipeline(raw).max(), 1, rtol=1e-4)
    with pytest.raises(ProcessingError, match="softmax along axis 'y' needs all its 17 voxels"):
        pipeline(raw.isel(y=slice(0, 9)))


@pytest.mark.parametrize("id", ["scale_range", "zero_mean_unit_variance"])
def test_statistics_per_channel_behind_a_softmax_see_all_channels(id: str) -> None:
    raw = image(11, "float32") / 100
    chain = [op("softmax", axis="channel"), op(id, axes=["z", "y", "x"])]
    small, large = fit(chain, raw, block_bytes=3000), fit(chain, raw)
    np.testing.assert_array_equal(small(raw).to_numpy(), large(raw).to_numpy())


def test_a_pipeline_of_elementwise_operations_is_pointwise() -> None:
    assert fit([op("sigmoid"), op("softmax", axis="channel")], image(0, "float32")).is_pointwise
    assert Pipeline().is_pointwise


def test_no_operations_change_nothing() -> None:
    raw = image(12, "uint8")
    assert fit([], raw)(raw).identical(raw)


def test_a_pipeline_can_be_sent_to_another_process() -> None:
    raw = image(13, "uint16")
    pipeline = fit([op("scale_range", axes=["y", "x"]), op("clip", min=0.0, max=1.0)], raw)
    sent = pickle.loads(pickle.dumps(pipeline))
    assert sent(raw).identical(pipeline(raw))


def test_fitting_without_statistics_reads_nothing(lazy: Any) -> None:
    raw, reads = lazy(image(14, "uint16").to_numpy(), DIMS)
    fit([op("clip", min=1.0), op("sigmoid"), v0_5.SoftmaxDescr(kwargs=v0_5.SoftmaxKwargs())], raw)
    assert reads.sizes == []


def test_fitting_reads_no_region_larger_than_a_block(lazy: Any) -> None:
    values = np.random.default_rng(15).normal(300, 50, (2, 8, 200, 300)).astype(np.uint16)
    raw, reads = lazy(values, DIMS, {"z": 1, "y": 64, "x": 64})
    chain = [
        op("clip", min_percentile=1, max_percentile=99, axes=["z", "y", "x"]),
        op("scale_range", axes=["y", "x"]),
        op("zero_mean_unit_variance", axes=list(DIMS)),
    ]
    fit(chain, raw, block_bytes=300_000)
    assert max(reads.sizes) <= 300_000
    assert sum(reads.sizes) <= 3 * values.nbytes + 100_000, "one pass for each operation"


def test_real_nuclei_tiled_equal_whole(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> None:
    raw = xr.DataArray(nuclei_2d[0], dims=("y", "x"))
    chain = [op("scale_range", axes=["y", "x"], min_percentile=1, max_percentile=99.8), op("sigmoid")]
    pipeline = fit(chain, raw, block_bytes=50_000)
    whole = pipeline(raw).to_numpy()
    for y in range(0, 512, 96):
        for x in range(0, 512, 77):
            cut = np.s_[y : y + 96, x : x + 77]
            np.testing.assert_array_equal(pipeline(raw[cut]).to_numpy(), whole[cut])
