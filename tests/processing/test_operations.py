"""Every operation against the formula of the spec, on worked numbers and on real nuclei."""

import numpy as np
import pytest
import xarray as xr
from bioimageio.spec.model import v0_5
from pydantic import TypeAdapter

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing import Operation, fit, needs_statistics
from im2im_zoo.processing.requirements import check_operations

ADAPTER: TypeAdapter[Operation] = TypeAdapter(Operation)


def op(id: str, **kwargs: object) -> Operation:
    extra = {} if id == "sigmoid" else {"kwargs": kwargs}
    return ADAPTER.validate_python({"id": id, **extra})


def tensor(values: object, dims: str = "channel y x", dtype: str = "float32") -> xr.DataArray:
    return xr.DataArray(np.asarray(values, dtype=dtype), dims=dims.split(), name="raw")


def run(operation: Operation, image: xr.DataArray, **more: object) -> np.ndarray:
    return fit([operation], image, **more)(image).to_numpy()


TWO = tensor([[[0.0, 1.0, 2.0, 5.0]], [[10.0, 20.0, 30.0, 40.0]]])


def test_binarize_is_one_above_the_threshold_and_zero_on_it() -> None:
    out = run(op("binarize", threshold=2.0), TWO)
    assert out.dtype == bool
    assert out[0, 0].tolist() == [False, False, False, True]


def test_binarize_along_channel_uses_each_channels_threshold() -> None:
    out = run(op("binarize", threshold=[0.5, 25.0], axis="channel"), TWO)
    assert out[:, 0].tolist() == [[False, True, True, True], [False, False, True, True]]


def test_clip_limits_to_fixed_values_and_keeps_integers() -> None:
    out = run(op("clip", min=2, max=30), tensor([[[0, 2, 30, 41]]], dtype="uint16"))
    assert out.tolist() == [[[2, 2, 30, 30]]]
    assert out.dtype == np.uint16


def test_clip_to_a_fraction_makes_integers_floats() -> None:
    out = run(op("clip", min=2.5), tensor([[[0, 2, 30, 41]]], dtype="uint16"))
    assert out.tolist() == [[[2.5, 2.5, 30, 41]]]
    assert out.dtype == np.float32


def test_clip_below_the_dtypes_range_changes_nothing_but_the_dtype() -> None:
    out = run(op("clip", min=-5.0, max=300.0), tensor([[[0, 255]]], dtype="uint8"))
    assert out.tolist() == [[[0, 255]]]


def test_clip_percentiles_are_values_that_occur_per_channel() -> None:
    rising = tensor(np.stack([np.arange(100), np.arange(100) * 10]).reshape(2, 10, 10), dtype="uint16")
    out = run(op("clip", min_percentile=5, max_percentile=90, axes=["y", "x"]), rising)
    assert (out[0].min(), out[0].max()) == (4, 89)
    assert (out[1].min(), out[1].max()) == (40, 890)


def test_clip_mixes_a_fixed_and_a_percentile_limit() -> None:
    rising = tensor(np.arange(100).reshape(1, 10, 10), dtype="uint16")
    out = run(op("clip", min=7, max_percentile=50, axes=["channel", "y", "x"]), rising)
    assert (out.min(), out.max()) == (7, 49)


def test_ensure_dtype_truncates_towards_zero() -> None:
    out = run(op("ensure_dtype", dtype="int16"), tensor([[[1.9, -1.9, 0.5, 300.0]]]))
    assert out.tolist() == [[[1, -1, 0, 300]]]
    assert out.dtype == np.int16


@pytest.mark.parametrize("source", ["float32", "float64", "float16"])
@pytest.mark.parametrize("target", ["uint8", "int8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_ensure_dtype_ends_at_the_integers_range(source: str, target: str) -> None:
    big = [[[np.inf, -np.inf, np.finfo(source).max, np.finfo(source).min, 100.0]]]
    out = run(op("ensure_dtype", dtype=target), tensor(big, dtype=source))
    info = np.iinfo(target)
    if source == "float16" and info.max > 65504:
        expected = [info.max, info.min, 65504, max(info.min, -65504), 100]
    else:
        expected = [info.max, info.min, info.max, info.min, 100]
    assert out[0, 0].tolist() == expected


def test_ensure_dtype_keeps_the_largest_float_below_the_range_exact() -> None:
    below = np.nextafter(np.float32(2**31), np.float32(0))
    assert run(op("ensure_dtype", dtype="int32"), tensor([[[below]]])).item() == int(below)


def test_ensure_dtype_refuses_nan_for_integers_by_name() -> None:
    with pytest.raises(ProcessingError, match=r"'raw' holds NaN.*uint8"):
        run(op("ensure_dtype", dtype="uint8"), tensor([[[np.nan]]]))


def test_ensure_dtype_of_integers_wraps_as_numpy_does() -> None:
    out = run(op("ensure_dtype", dtype="uint8"), tensor([[[256, 257, 3]]], dtype="uint16"))
    assert out.tolist() == [[[0, 1, 3]]]


def test_scale_linear_is_gain_times_plus_offset() -> None:
    assert run(op("scale_linear", gain=2.0, offset=3.0), TWO)[0, 0].tolist() == [3, 5, 7, 13]


def test_scale_linear_along_channel() -> None:
    out = run(op("scale_linear", axis="channel", gain=[1.0, 0.5], offset=[1.0, -1.0]), TWO)
    assert out[:, 0].tolist() == [[1, 2, 3, 6], [4, 9, 14, 19]]


def test_sigmoid_is_the_logistic_function_without_overflow() -> None:
    out = run(op("sigmoid"), tensor([[[0.0, np.log(3), -1e4, 1e4]]]))
    np.testing.assert_allclose(out[0, 0], [0.5, 0.75, 0.0, 1.0], rtol=1e-6)


def test_softmax_shares_sum_to_one_over_channel() -> None:
    out = run(op("softmax", axis="channel"), tensor([[[0.0, 1000.0]], [[np.log(3), 1000.0]]]))
    np.testing.assert_allclose(out[:, 0], [[0.25, 0.5], [0.75, 0.5]], rtol=1e-6)


def test_fixed_normalisation_subtracts_and_divides_without_eps() -> None:
    out = run(op("fixed_zero_mean_unit_variance", mean=1.0, std=2.0), TWO)
    assert out[0, 0].tolist() == [-0.5, 0.0, 0.5, 2.0]
    along = op("fixed_zero_mean_unit_variance", mean=[1.0, 20.0], std=[1.0, 10.0], axis="channel")
    assert run(along, TWO)[:, 0].tolist() == [[-1, 0, 1, 4], [-1, 0, 1, 2]]


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_zero_mean_unit_variance_is_the_formula_with_its_eps(eps: float) -> None:
    out = run(op("zero_mean_unit_variance", axes=["channel", "y", "x"], eps=eps), TWO)
    x = TWO.to_numpy().astype(np.float64)
    np.testing.assert_allclose(out, (x - x.mean()) / (x.std() + eps), rtol=1e-6)


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_scale_range_is_the_formula_with_its_eps(
    eps: float, nuclei_2d: tuple[np.ndarray, np.ndarray]
) -> None:
    image = xr.DataArray(nuclei_2d[0], dims=("y", "x"))
    out = run(op("scale_range", axes=["y", "x"], min_percentile=1, max_percentile=99.8, eps=eps), image)
    low, high = np.quantile(nuclei_2d[0], [0.01, 99.8 / 100])
    np.testing.assert_allclose(out, (nuclei_2d[0] - low) / (high - low + eps), rtol=3e-7, atol=1e-7)


def test_eps_counts_where_the_range_is_small() -> None:
    image = tensor([[[0.0, 0.1]]])
    out = run(op("scale_range", axes=["channel", "y", "x"], eps=0.1), image)
    np.testing.assert_allclose(out[0, 0], [0.0, 0.5], rtol=1e-6)


def test_a_constant_image_becomes_zero_even_with_a_tiny_eps() -> None:
    image = tensor(np.full((1, 7, 9), 41.3))
    for id in ("scale_range", "zero_mean_unit_variance"):
        assert not run(op(id, axes=["channel", "y", "x"], eps=1e-300), image.round()).any()


def test_scale_range_takes_percentiles_of_the_raw_reference() -> None:
    reference = tensor([[[100.0, 300.0]]])
    output = tensor([[[0.0, 100.0, 500.0]]])
    operation = op("scale_range", axes=["channel", "y", "x"], reference_tensor="input", eps=1e-9)
    out = run(operation, output, references={"input": reference})
    np.testing.assert_allclose(out[0, 0], [-0.5, 0.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_scale_mean_variance_matches_the_reference_by_the_formula(
    eps: float, nuclei_3d: tuple[np.ndarray, np.ndarray]
) -> None:
    reference = xr.DataArray(nuclei_3d[0], dims=("z", "y", "x"))
    rng = np.random.default_rng(0)
    image = xr.DataArray(rng.normal(3, 0.5, (31, 61, 57)).astype(np.float32), dims=("z", "y", "x"))
    operation = op("scale_mean_variance", reference_tensor="input", axes=["z", "y", "x"], eps=eps)
    out = run(operation, image, references={"input": reference})
    x, r = image.to_numpy().astype(np.float64), nuclei_3d[0].astype(np.float64)
    expected = (x - x.mean()) / (x.std() + eps) * (r.std() + eps) + r.mean()
    np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-3)


def test_statistics_are_of_what_the_operations_before_make() -> None:
    image = tensor([[[0.0, 1.0, 2.0, 1000.0]]])
    out = fit([op("clip", max=3.0), op("scale_range", axes=["channel", "y", "x"], eps=1e-9)], image)(image)
    np.testing.assert_allclose(out.to_numpy()[0, 0], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)


def test_a_narrow_range_far_from_zero_is_not_rounded_away() -> None:
    rng = np.random.default_rng(1)
    values = (60000 + rng.integers(0, 3, (1, 64, 64))).astype(np.uint16)
    out = run(op("zero_mean_unit_variance", axes=["channel", "y", "x"]), tensor(values, dtype="uint16"))
    x = values.astype(np.float64)
    np.testing.assert_allclose(out, (x - x.mean()) / (x.std() + 1e-6), atol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "computed"),
    [("uint16", "float32"), ("float32", "float32"), ("int32", "float64"), ("float64",) * 2],
)
def test_results_are_float32_unless_the_input_needs_more(dtype: str, computed: str) -> None:
    out = run(op("scale_linear", gain=0.5), tensor([[[1, 2]]], dtype=dtype))
    assert out.dtype == computed


def test_the_tensor_keeps_its_axes_coordinates_name_and_values() -> None:
    image = tensor(np.ones((2, 3, 4))).assign_coords(channel=["DNA", "actin"]).assign_attrs(a=1)
    out = fit([op("scale_linear", gain=2.0)], image)(image)
    assert out.dims == image.dims
    assert out.coords["channel"].to_numpy().tolist() == ["DNA", "actin"]
    assert (out.name, out.attrs) == ("raw", {"a": 1})
    assert (image == 1).all()


def test_dataset_statistics_are_taken_of_the_dataset() -> None:
    dark, bright = tensor([[[0.0, 2.0]]]), tensor([[[10.0, 12.0, 14.0]]])
    together = np.array([0, 2, 10, 12, 14.0])
    for axes in ({}, {"axes": ["batch", "channel", "y", "x"]}):
        out = run(op("zero_mean_unit_variance", **axes), dark, dataset=[dark, bright])
        np.testing.assert_allclose(out[0, 0], (together[:2] - together.mean()) / together.std(), rtol=1e-5)
    per_sample = run(op("zero_mean_unit_variance", axes=["channel", "y", "x"]), dark, dataset=[dark, bright])
    np.testing.assert_allclose(per_sample[0, 0], [-1, 1], rtol=1e-5)


def test_dataset_percentiles_are_exact_over_all_images_behind_a_per_sample_operation() -> None:
    rng = np.random.default_rng(2)
    images = [tensor(rng.gamma(2.0, k, (1, 9, 8 + k))) for k in (1, 2, 3)]
    first = op("zero_mean_unit_variance", axes=["channel", "y", "x"])
    pipeline = fit([first, op("scale_range", max_percentile=90)], images[0], dataset=images)
    normalised = [run(first, image).ravel() for image in images]
    low, high = np.quantile(np.concatenate(normalised), [0, 0.9])
    expected = (normalised[0] - low) / (high - low + 1e-6)
    np.testing.assert_allclose(pipeline(images[0]).to_numpy().ravel(), expected, rtol=1e-5, atol=1e-6)


def test_omitted_axes_without_a_dataset_mean_this_image() -> None:
    np.testing.assert_allclose(
        run(op("zero_mean_unit_variance"), tensor([[[1.0, 3.0]]]))[0, 0], [-1, 1], rtol=1e-5
    )


def test_only_some_operations_need_statistics() -> None:
    assert not needs_statistics([op("sigmoid"), op("clip", max=1.0), op("softmax", axis="channel")])
    assert needs_statistics([op("sigmoid"), op("clip", max_percentile=99, axes=["y", "x"])])
    assert needs_statistics([op("scale_range")])


@pytest.mark.parametrize(
    "operation",
    [
        op("zero_mean_unit_variance", axes=["z", "y"]),
        op("scale_linear", gain=[1.0, 2.0], axis="z"),
        op("softmax", axis="z"),
        op("clip", max_percentile=99, axes=["z"]),
        op("scale_mean_variance", axes=["z"], reference_tensor="raw"),
    ],
)
def test_an_axis_the_tensor_lacks_is_named_with_the_operation(operation: Operation) -> None:
    message = rf"operation 2 \({operation.id}\): axis 'z' .*'channel', 'y', 'x'"
    with pytest.raises(ProcessingError, match=message):
        check_operations([op("sigmoid"), operation], ("channel", "y", "x"))


def test_batch_may_be_named_though_images_have_none() -> None:
    check_operations([op("zero_mean_unit_variance", axes=["batch", "y", "x"])], ("y", "x"))


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (v0_5.CellposeFlowDynamicsDescr.model_construct(id="cellpose_flow_dynamics"), "the last operation"),
        (
            v0_5.StardistPostprocessingDescr.model_construct(id="stardist_postprocessing"),
            "the last operation",
        ),
        (op("clip", min=3.0, max=2.0), "lower limit 3.0 is not below"),
        (op("clip", min_percentile=60, max_percentile=50), "lower limit 60.0"),
        (op("zero_mean_unit_variance", axes=[]), "empty list"),
    ],
)
def test_what_cannot_be_done_is_refused_before_reading(operation: Operation, message: str) -> None:
    with pytest.raises(ProcessingError, match=message):
        check_operations([operation], ("channel", "y", "x"))


def test_values_along_an_axis_must_be_as_many_as_the_axis_has() -> None:
    with pytest.raises(ProcessingError, match=r"operation 1 \(binarize\): 3 values .*'channel'.* has 2"):
        run(op("binarize", threshold=[1.0, 2.0, 3.0], axis="channel"), TWO)


def test_a_missing_reference_tensor_is_named() -> None:
    operation = op("scale_range", axes=["y", "x"], reference_tensor="raw_input")
    with pytest.raises(ProcessingError, match=r"'raw_input' is not there; there are \['other'\]"):
        run(operation, TWO, references={"other": TWO})


def test_a_reference_with_other_channels_is_refused_unless_they_are_taken_together() -> None:
    one = TWO.isel(channel=[0])
    with pytest.raises(ProcessingError, match="vary along axis 'channel', which does not fit tensor 'raw'"):
        run(op("scale_range", axes=["y", "x"], reference_tensor="input"), one, references={"input": TWO})
    together = op("scale_range", axes=["channel", "y", "x"], reference_tensor="input")
    np.testing.assert_allclose(run(together, one, references={"input": TWO}), one / 40, rtol=1e-6)


def test_dataset_statistics_of_a_reference_are_refused_rather_than_mixed() -> None:
    operation = op("scale_mean_variance", reference_tensor="input")
    with pytest.raises(ProcessingError, match="without 'batch'"):
        run(operation, TWO, references={"input": TWO}, dataset=[TWO, TWO])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("block_bytes", [2**26, 64])
@pytest.mark.parametrize("id", ["zero_mean_unit_variance", "scale_range"])
def test_values_that_are_not_finite_are_refused_by_the_tensors_name(
    bad: float, block_bytes: int, id: str
) -> None:
    values = np.ones((1, 40, 41))
    values[0, 33, 7] = bad
    with pytest.raises(ProcessingError, match=rf"operation 1 \({id}\): tensor 'raw' holds NaN"):
        run(op(id, axes=["channel", "y", "x"]), tensor(values), block_bytes=block_bytes)


def test_values_that_are_not_finite_pass_where_no_statistics_are_taken() -> None:
    assert np.isnan(run(op("scale_linear", gain=2.0), tensor([[[np.nan]]]))).all()


def test_complex_images_are_refused() -> None:
    with pytest.raises(ProcessingError, match="complex64"):
        run(op("sigmoid"), tensor([[[1j]]], dtype="complex64"))


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ProcessingError, match="no voxels"):
        run(op("zero_mean_unit_variance", axes=["y", "x"]), tensor(np.ones((1, 0, 4))))
