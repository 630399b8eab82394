"""Random model descriptions and images: a result of the promised shape, or a reason; never anything else."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import xarray as xr
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5 as spec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from packages_for_tests import follows, output_axis, tensor_axis, tensor_in, tensor_out

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.package import Package
from im2im_zoo.runtime import predict_arrays
from im2im_zoo.runtime.plan.memory import Cost

COST = Cost(process=0, call=0, per_voxel=100.0)
CHANNELS = ["a", "b", "c"]


class ByTheBook:
    """Gives arrays of the shapes that the RDF's own formula promises, and refuses inputs that it does not allow."""

    weights_format, backend, precision, device = "onnx", "none", "float32", "cpu"

    def __init__(self, description: Any) -> None:
        self.description = description

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        sizes: dict[tuple[str, str], int] = {}
        axes: dict[tuple[str, str], Any] = {}
        for described, array in zip(self.description.inputs, inputs, strict=True):
            assert (array is None) <= described.optional
            for i, axis in enumerate(described.axes):
                key = (str(described.id), str(axis.id))
                axes[key] = axis
                if array is not None:
                    sizes[key] = array.shape[i]
        for key, axis in axes.items():
            if key in sizes:
                self._check(key, axis, sizes, axes)
        outputs = []
        for described in self.description.outputs:
            shape = []
            for axis in described.axes:
                shape.append(self._size(axis, sizes, axes, described))
            outputs.append(np.zeros(shape, np.float32))
        return outputs

    def _check(self, key: Any, axis: Any, sizes: Any, axes: Any) -> None:
        size, have = axis.size, sizes[key]
        if isinstance(size, int):
            assert have == size, (key, have, size)
        elif hasattr(size, "step"):
            assert have >= size.min, (key, have, size)
            assert (have - size.min) % size.step == 0, (key, have, size)
        elif hasattr(size, "axis_id"):
            assert have == self._follow(axis, sizes, axes)

    def _size(self, axis: Any, sizes: Any, axes: Any, described: Any) -> int:
        key = (str(described.id), str(axis.id))
        axes[key] = axis
        if axis.size is None:
            sizes[key] = 1
        elif isinstance(axis.size, int):
            sizes[key] = axis.size
        elif hasattr(axis.size, "axis_id"):
            sizes[key] = self._follow(axis, sizes, axes)
        else:
            sizes[key] = 3
        return sizes[key]

    def _follow(self, axis: Any, sizes: Any, axes: Any) -> int:
        key = (str(axis.size.tensor_id), str(axis.size.axis_id))
        ratio = Fraction(axes[key].scale).limit_denominator(100) / Fraction(axis.scale).limit_denominator(100)
        return int(sizes[key] * ratio) + axis.size.offset


@st.composite
def input_axes(draw: st.DrawFn, first: Sequence[str]) -> list[Any]:
    more = draw(st.lists(st.sampled_from(["time", "z", "index"]), unique=True, max_size=1))
    names = [*more, "y", "x", *(["channel"] * draw(st.booleans()))]
    axes = [tensor_axis("batch")]
    for name in draw(st.permutations(names)):
        if name == "channel":
            axes.append(tensor_axis("channel", CHANNELS[: draw(st.integers(1, 3))]))
            continue
        scale = {} if name == "index" else {"scale": draw(st.sampled_from([1.0, 1.0, 2.0, 0.5]))}
        parameterized = (draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 3, 8, 16])))
        kinds = [parameterized, parameterized, draw(st.integers(1, 48))]
        if name in first:
            kinds += [follows("in0", name, draw(st.sampled_from([0, 0, -2, 4])))] * 2
        axes.append(tensor_axis(name, draw(st.sampled_from(kinds)), **scale))
    return axes


@st.composite
def output_axes(draw: st.DrawFn, inputs: Sequence[Any]) -> list[Any]:
    axes = [tensor_axis("batch")]
    source = draw(st.sampled_from(list(inputs)))
    names = [str(a.id) for a in source.axes if a.type not in ("batch", "channel")]
    kept = [n for n in names if draw(st.integers(0, 9))]
    if draw(st.booleans()):
        kept.append("channel")
    if not draw(st.integers(0, 9)):
        kept.append("index") if "index" not in kept else None
    for name in draw(st.permutations(kept)):
        if name == "channel":
            axes.append(tensor_axis("channel", CHANNELS[: draw(st.integers(1, 3))]))
            continue
        size = follows(str(source.id), name, draw(st.sampled_from([0, 0, 0, -2, -4, -7, 2])))
        if name not in names or not draw(st.integers(0, 11)):
            size = draw(st.sampled_from([draw(st.integers(1, 20)), spec.DataDependentSize()]))
        more: dict[str, Any] = {}
        if name != "index":
            more["scale"] = draw(st.sampled_from([1.0, 1.0, 1.0, 2.0, 0.5, 4.0]))
        if name not in ("index",) and not isinstance(size, int) and draw(st.booleans()):
            more["halo"] = draw(st.integers(1, 9))
        axes.append(output_axis(name, size, **more))
    return axes


@st.composite
def descriptions(draw: st.DrawFn) -> Any:
    folder = Path(__file__).parent
    with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
        try:
            inputs = [tensor_in("in0", draw(input_axes(())))]
            if draw(st.booleans()):
                names = [str(a.id) for a in inputs[0].axes]
                pad = draw(st.sampled_from([None, spec.EdgePadding(), spec.ConstantPadding(value=3)]))
                inputs.append(
                    tensor_in("in1", draw(input_axes(names)), optional=draw(st.booleans()), pad=pad)
                )
            outputs = [
                tensor_out(f"out{i}", draw(output_axes(inputs))) for i in range(draw(st.integers(1, 2)))
            ]
            return spec.ModelDescr(
                name="A model that was thrown together",
                description="",
                authors=[spec.Author(name="Nobody")],
                cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
                license=spec.LicenseId("MIT"),
                inputs=inputs,
                outputs=outputs,
                weights={"onnx": {"source": "test_fuzz.py", "opset_version": 17}},
            )
        except (pydantic.ValidationError, ValueError, NotImplementedError):
            assume(False)


@st.composite
def images_of(draw: st.DrawFn, description: Any) -> dict[str, xr.DataArray]:
    images = {}
    common = {a: draw(st.integers(1, 60)) for a in ("time", "z", "index", "channel", "y", "x")}
    for described in description.inputs:
        if described.optional and draw(st.booleans()):
            continue
        dims = [str(a.id) for a in described.axes if a.type != "batch"]
        dims = [d for d in dims if draw(st.integers(0, 14))]
        extra = [a for a in ("time", "z", "channel") if a not in dims and not draw(st.integers(0, 5))]
        dims = draw(st.permutations(dims + extra))
        sizes = []
        for d in dims:
            axis = next((a for a in described.axes if str(a.id) == d), None)
            wanted = axis.size if axis is not None and isinstance(axis.size, int) else common[d]
            sizes.append(wanted if draw(st.integers(0, 5)) else draw(st.integers(1, 60)))
        while int(np.prod(sizes)) > 200_000:
            sizes[int(np.argmax(sizes))] //= 2
        dtype = draw(st.sampled_from(["uint8", "uint16", "float32", "bool"]))
        images[str(described.id)] = xr.DataArray(np.ones(sizes, dtype), dims=dims)
    return images


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
@given(st.data())
def test_a_random_model_gives_what_it_promises_or_a_reason(data):
    description = data.draw(descriptions())
    images = data.draw(images_of(description))
    package = Package("thrown together", Path(__file__).parent, description, {})
    options: dict[str, Any] = {
        "halo": data.draw(st.sampled_from(["declared", 0, 3, {"y": 2}])),
        "blend": data.draw(st.sampled_from([None, True])),
        "whole": data.draw(st.integers(0, 4)) == 0,
        "tile": data.draw(st.sampled_from([None, None, {"y": 24}, {"y": 16, "x": 32}, {"x": 48}])),
        "memory": data.draw(st.sampled_from([2**40, 230 * 2**20])),
    }
    try:
        results = predict_arrays(package, images, engine=ByTheBook(description), cost=COST, **options)
    except Im2ImError:
        return
    assert list(results) == [str(o.id) for o in description.outputs]
    for result in results.values():
        # What no tile wrote is not 0.
        assert not np.asarray(result).any()


@pytest.mark.parametrize("seed", range(20))
def test_models_that_are_sound_run(seed):
    """Of sizes that fit, so that the test above is known not to be refused everything."""
    random = np.random.default_rng(seed)
    step = int(random.choice([1, 2, 4, 8]))
    least = int(random.integers(1, 6)) * step
    offset, scale = int(random.choice([0, -2, -4])), float(random.choice([1.0, 2.0, 0.5]))
    space = [tensor_axis(a, (max(least, 8), step)) for a in "yx"]
    with ValidationContext(root=Path(__file__).parent, perform_io_checks=False, log_warnings=False):
        description = spec.ModelDescr(
            name="A sound model",
            description="",
            authors=[spec.Author(name="Nobody")],
            cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
            license=spec.LicenseId("MIT"),
            inputs=[tensor_in("in0", [tensor_axis("batch"), *space])],
            outputs=[
                tensor_out(
                    "out0",
                    [
                        tensor_axis("batch"),
                        *(output_axis(a, follows("in0", a, offset), scale=scale) for a in "yx"),
                    ],
                )
            ],
            weights={"onnx": {"source": "test_fuzz.py", "opset_version": 17}},
        )
    package = Package("sound", Path(__file__).parent, description, {})
    shape = tuple(int(n) for n in random.integers(12, 90, 2))
    image = xr.DataArray(np.ones(shape, np.uint8), dims=("y", "x"))
    tile = {"y": 40 + max(least, 8) % step, "x": 40 + max(least, 8) % step}
    result = predict_arrays(package, image, engine=ByTheBook(description), cost=COST, tile=tile, halo=2)[
        "out0"
    ]
    assert result.shape == tuple(int(n / scale) for n in shape)
    assert not np.asarray(result).any()
