"""Our operations beside bioimageio.core's: equal where core follows the spec, and where it does not, how we differ.

The second half keeps record of core 0.11's departures. A test that fails there after an upgrade of core says
that core was mended: move its case to the first half.
"""

from collections.abc import Mapping

import numpy as np
import pytest
import xarray as xr
from bioimageio.core.proc_ops import get_proc
from bioimageio.core.proc_setup import get_pre_and_postprocessing
from bioimageio.core.sample import Sample
from bioimageio.core.stat_calculators import compute_measures
from bioimageio.core.tensor import Tensor
from bioimageio.spec.model import v0_5
from pydantic import TypeAdapter

from im2im_zoo.processing import Operation, fit

ADAPTER: TypeAdapter[Operation] = TypeAdapter(Operation)
DIMS = ("batch", "channel", "y", "x")
SAMPLE = ["channel", "y", "x"]


def op(id: str, **kwargs: object) -> Operation:
    return ADAPTER.validate_python({"id": id} if id == "sigmoid" else {"id": id, "kwargs": kwargs})


def descriptor() -> v0_5.InputTensorDescr:
    return v0_5.InputTensorDescr(
        id=v0_5.TensorId("raw"),
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[v0_5.Identifier("a"), v0_5.Identifier("b")]),
            v0_5.SpaceInputAxis(id=v0_5.AxisId("y"), size=v0_5.ParameterizedSize(min=1, step=1)),
            v0_5.SpaceInputAxis(id=v0_5.AxisId("x"), size=v0_5.ParameterizedSize(min=1, step=1)),
        ],
    )


def core(
    operations: list[Operation], image: xr.DataArray, references: Mapping[str, xr.DataArray] | None = None
) -> np.ndarray:
    """What bioimageio.core makes of one sample, statistics taken as its prediction pipeline does."""
    procs = [get_proc(operation, descriptor()) for operation in operations]  # type: ignore[arg-type]
    members = {k: Tensor.from_xarray(v) for k, v in {"raw": image, **(references or {})}.items()}
    sample = Sample(members=members, stat={}, id="s")  # type: ignore[arg-type]
    sample.stat.update(compute_measures({m for p in procs for m in p.required_measures}, [sample]))
    for proc in procs:
        proc(sample)
    return sample.members["raw"].to_numpy()  # type: ignore[index]


@pytest.fixture(params=["uint16", "float32", "float64"])
def image(request: pytest.FixtureRequest, nuclei_2d: tuple[np.ndarray, np.ndarray]) -> xr.DataArray:
    """Real nuclei, two channels of different brightness, one batch."""
    raw = nuclei_2d[0][:200, :300]
    return xr.DataArray(np.stack([raw, raw * 3 + 7])[None].astype(request.param), dims=DIMS, name="raw")


SAME = [
    op("binarize", threshold=60.0),
    op("clip", min=20.0, max=100.0),
    op("clip", min_percentile=3, max_percentile=99.2, axes=SAMPLE),
    op("clip", min_percentile=3, max_percentile=99.2, axes=["y", "x"]),
    op("clip", min=30.0, max_percentile=99.2, axes=["y", "x"]),
    op("clip", max_percentile=90.0, axes=SAMPLE),
    op("ensure_dtype", dtype="float64"),
    op("ensure_dtype", dtype="int32"),
    op("scale_linear", gain=0.01, offset=-0.3),
    op("scale_linear", gain=[0.01, 0.02], offset=[3.0, 4.0], axis="channel"),
    op("softmax", axis="channel"),
    op("fixed_zero_mean_unit_variance", mean=101.0, std=11.0),
    op("fixed_zero_mean_unit_variance", mean=[101.0, 50.0], std=[11.0, 3.0], axis="channel"),
    op("zero_mean_unit_variance", axes=SAMPLE),
    op("zero_mean_unit_variance", axes=["y", "x"]),
    op("zero_mean_unit_variance", axes=["batch", "y", "x"]),
    op("zero_mean_unit_variance"),
    op("scale_range", axes=SAMPLE),
    op("scale_range", axes=["y", "x"], min_percentile=5, max_percentile=99.8),
]


@pytest.mark.parametrize("operation", SAME, ids=lambda o: f"{o.id}-{o.kwargs.model_dump(exclude_unset=True)}")
def test_an_operation_equals_cores(operation: Operation, image: xr.DataArray) -> None:
    ours = fit([operation], image)(image).to_numpy()
    if operation.id == "softmax" and image.dtype.kind == "u":
        image = image.astype(np.float32)  # core subtracts the maximum in uint16: see below
    # core sums float32 images in float32: see below.
    rtol = 1e-4 if operation.id == "zero_mean_unit_variance" and image.dtype == np.float32 else 1e-5
    np.testing.assert_allclose(ours, core([operation], image), rtol=rtol, atol=2e-6)


def test_sigmoid_equals_cores(image: xr.DataArray) -> None:
    image = ((image - 100.0) / 20.0).astype(image.dtype if image.dtype.kind == "f" else "float32")
    np.testing.assert_allclose(fit([op("sigmoid")], image)(image), core([op("sigmoid")], image), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "bool", "float32"])
def test_ensure_dtype_equals_cores_inside_the_range(dtype: str) -> None:
    values = np.array([0.0, 0.49, 0.5, 0.51, 1.5, 2.999, 100.0, 127.0], dtype=np.float32)
    image = xr.DataArray(values.reshape(1, 1, 2, 4), dims=DIMS, name="raw")
    operation = op("ensure_dtype", dtype=dtype)
    ours, theirs = fit([operation], image)(image).to_numpy(), core([operation], image)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_a_clip_percentile_lies_on_the_same_voxel_value_as_cores(image: xr.DataArray) -> None:
    operation = op("clip", min_percentile=37.1, max_percentile=61.3, axes=SAMPLE)
    ours = fit([operation], image)(image).to_numpy()
    theirs = core([operation], image)
    assert (ours.min(), ours.max()) == (theirs.min(), theirs.max())


@pytest.mark.filterwarnings("ignore:Computed dataset percentiles naively")
def test_percentiles_over_a_dataset_of_one_image_equal_cores(image: xr.DataArray) -> None:
    for operation in (
        op("scale_range", min_percentile=1, max_percentile=99),
        op("clip", max_percentile=77.7),
    ):
        ours = fit([operation], image)(image)
        np.testing.assert_allclose(ours, core([operation], image), rtol=1e-5, atol=1e-6)


def test_scale_range_by_a_reference_equals_cores(image: xr.DataArray) -> None:
    reference = (image * 2 + 1).rename("input")
    operation = op("scale_range", axes=["y", "x"], reference_tensor="input")
    ours = fit([operation], image, references={"input": reference})(image)
    np.testing.assert_allclose(ours, core([operation], image, {"input": reference}), rtol=1e-5, atol=1e-6)


# ---- where bioimageio.core 0.11 departs from the spec --------------------------------------------------------


@pytest.fixture
def small() -> xr.DataArray:
    values = np.array([[[0.0, 1.0, 2.0, 100.0]], [[5.0, 6.0, 7.0, 8.0]]], dtype=np.float32)
    return xr.DataArray(values[None], dims=DIMS, name="raw")


def test_core_takes_statistics_of_the_raw_input_behind_a_clip_and_we_of_the_clipped(
    small: xr.DataArray,
) -> None:
    operations = [op("clip", min=0.0, max=10.0), op("zero_mean_unit_variance", axes=SAMPLE)]
    clipped = small.to_numpy().clip(0, 10).astype(np.float64)
    formula = (clipped - clipped.mean()) / (clipped.std() + 1e-6)
    np.testing.assert_allclose(fit(operations, small)(small), formula, rtol=1e-6)
    assert np.abs(core(operations, small) - formula).max() > 0.5


@pytest.mark.parametrize("id", ["scale_range", "zero_mean_unit_variance"])
def test_core_ignores_eps_and_we_follow_it(id: str, small: xr.DataArray) -> None:
    small = small / 1000
    big, tiny = op(id, axes=SAMPLE, eps=0.1), op(id, axes=SAMPLE)
    np.testing.assert_array_equal(core([big], small), core([tiny], small))
    x = small.to_numpy().astype(np.float64)
    center, spread = (x.min(), np.ptp(x)) if id == "scale_range" else (x.mean(), x.std())
    np.testing.assert_allclose(fit([big], small)(small), (x - center) / (spread + 0.1), rtol=1e-5, atol=1e-7)


def test_core_cannot_do_scale_mean_variance_and_we_follow_the_formula(small: xr.DataArray) -> None:
    reference = (small * 3 + 2).rename("input")
    operation = op("scale_mean_variance", reference_tensor="input", axes=SAMPLE)
    with pytest.raises(KeyError):
        pipeline_of_core(operation, small, reference)
    x, r = small.to_numpy().astype(np.float64), reference.to_numpy().astype(np.float64)
    formula = (x - x.mean()) / (x.std() + 1e-6) * (r.std() + 1e-6) + r.mean()
    np.testing.assert_allclose(
        fit([operation], small, references={"input": reference})(small), formula, rtol=1e-5
    )


def pipeline_of_core(operation: Operation, output: xr.DataArray, reference: xr.DataArray) -> np.ndarray:
    """Postprocessing as core's prediction pipeline runs it: statistics first, when only the inputs are there."""
    model = v0_5.ModelDescr.model_construct(
        inputs=[descriptor().model_copy(update={"id": v0_5.TensorId("input")})],
        outputs=[v0_5.OutputTensorDescr.model_construct(id=v0_5.TensorId("raw"), postprocessing=[operation])],
    )
    sample = Sample(members={"input": Tensor.from_xarray(reference)}, stat={}, id="s")  # type: ignore[dict-item]
    both = get_pre_and_postprocessing(model, dataset_for_initial_statistics=[])
    both.pre(sample)
    sample.members["raw"] = Tensor.from_xarray(output)  # type: ignore[index]
    both.post(sample)
    return sample.members["raw"].to_numpy()  # type: ignore[index]


def test_core_binarizes_along_the_last_axis_and_we_along_the_named_one() -> None:
    values = np.array([[1.0, 3.0], [1.0, 3.0]], dtype=np.float32).reshape(1, 2, 1, 2)
    image = xr.DataArray(values, dims=DIMS, name="raw")
    operation = op("binarize", threshold=[0.0, 2.0], axis="channel")
    ours = fit([operation], image)(image).to_numpy()
    assert ours[0, :, 0].tolist() == [[True, True], [False, True]]
    assert core([operation], image)[0, :, 0].tolist() == [[True, True], [True, True]]


def test_core_adds_an_eps_to_the_fixed_std_and_we_divide_by_it(small: xr.DataArray) -> None:
    operation = op("fixed_zero_mean_unit_variance", mean=0.0, std=1e-6)
    np.testing.assert_allclose(fit([operation], small)(small), small.to_numpy() * 1e6, rtol=1e-6)
    np.testing.assert_allclose(core([operation], small), small.to_numpy() * 0.5e6, rtol=1e-6)


def test_core_sums_float32_in_float32_and_we_in_float64(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> None:
    raw = (nuclei_2d[0].astype(np.float32) / 7 + 1000)[None, None]
    image = xr.DataArray(raw, dims=DIMS, name="raw")
    operation = op("zero_mean_unit_variance", axes=SAMPLE)
    x = raw.astype(np.float64)
    formula = (x - x.mean()) / (x.std() + 1e-6)
    ours = np.abs(fit([operation], image)(image).to_numpy() - formula).max()
    assert ours < 2e-6
    assert np.abs(core([operation], image) - formula).max() > 3 * ours


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in exp", "ignore:invalid value encountered in divide"
)
def test_core_subtracts_softmaxs_maximum_in_unsigned_integers_and_we_in_floats() -> None:
    image = xr.DataArray(np.array([0, 3], dtype=np.uint16).reshape(1, 2, 1, 1), dims=DIMS, name="raw")
    operation = op("softmax", axis="channel")
    shares = np.exp([-3.0, 0.0]) / np.exp([-3.0, 0.0]).sum()
    np.testing.assert_allclose(fit([operation], image)(image).to_numpy().ravel(), shares, rtol=1e-6)
    assert not np.allclose(core([operation], image).ravel(), shares)


@pytest.mark.filterwarnings("ignore:Computed dataset percentiles naively")
def test_core_averages_percentiles_over_a_dataset_and_we_pool_the_voxels() -> None:
    rng = np.random.default_rng(0)
    images = [xr.DataArray(rng.gamma(2, k, (1, 1, 8, 9)).astype("f4"), dims=DIMS, name="raw") for k in (1, 9)]
    operation = op("scale_range", max_percentile=90)
    (high,) = (
        fit([operation], images[0], dataset=images)
        .steps[0](xr.DataArray([[[[1.0]]]], dims=DIMS))
        .values.ravel()
    )
    pooled = np.quantile(np.concatenate([i.values.ravel() for i in images]), 0.9)
    low = min(i.values.min() for i in images)
    np.testing.assert_allclose(high, (1 - low) / (pooled - low + 1e-6), rtol=1e-5)
    averaged = np.mean([np.quantile(i.values, 0.9) for i in images])
    proc = get_proc(operation, descriptor())  # type: ignore[arg-type]
    samples = [Sample(members={"raw": Tensor.from_xarray(i)}, stat={}, id="s") for i in images]  # type: ignore[dict-item]
    theirs = sorted(float(np.asarray(v)) for v in compute_measures(proc.required_measures, samples).values())
    np.testing.assert_allclose(theirs[-1], averaged, rtol=1e-5)
    assert abs(averaged - pooled) > 1
