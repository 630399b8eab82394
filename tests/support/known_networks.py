"""Networks for which it is known how far a cut is felt: stacks of layers, with the arithmetic of each."""

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.openvino import import_openvino
from im2im_zoo.networks.cuts import Run
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis


@dataclass(frozen=True)
class Layer:
    """A convolution or pooling of `kernel` voxels every `stride`; if `up`, a transposed one, or a repetition."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0
    up: bool = False
    pool: bool = False

    def module(self, channels: int, ndim: int) -> nn.Module:
        if self.pool and self.up:
            return nn.Upsample(scale_factor=float(self.stride))
        if self.pool:
            return (nn.MaxPool2d if ndim == 2 else nn.MaxPool3d)(self.kernel, self.stride)
        if self.up:
            kind = nn.ConvTranspose2d if ndim == 2 else nn.ConvTranspose3d
            return kind(channels, channels, self.kernel, self.stride, self.padding)
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        return conv(channels, channels, self.kernel, self.stride, self.padding, self.dilation)

    def size(self, n: int) -> int:
        if self.up:
            return (n - 1) * self.stride - 2 * self.padding + self.kernel
        return (n + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1

    def last(self, a: int) -> int:
        """The last voxel that depends on what lies at or before voxel `a`."""
        return (
            a * self.stride - self.padding + self.kernel - 1 if self.up else (a + self.padding) // self.stride
        )

    def first(self, b: int) -> int:
        """The first voxel that depends on what lies at or after voxel `b`."""
        if self.up:
            return b * self.stride - self.padding
        return -(-(b + self.padding - (self.kernel - 1) * self.dilation) // self.stride)


@dataclass(frozen=True)
class Stack:
    """Layers one after the other, with a nonlinearity between."""

    layers: tuple[Layer, ...]

    @property
    def scale(self) -> Fraction:
        result = Fraction(1)
        for layer in self.layers:
            result = result * layer.stride if layer.up else result / layer.stride
        return result

    @property
    def step(self) -> int:
        """The least common multiple of what the layers need to stay in phase."""
        step, scale = 1, Fraction(1)
        for layer in self.layers:
            scale = scale * layer.stride if layer.up else scale / layer.stride
            step = int(np.lcm(step, scale.denominator))
        return step

    def size(self, n: int) -> int | None:
        """Voxels of the output; None if a layer leaves some over or has too few."""
        for layer in self.layers:
            if not layer.up and layer.stride > 1 and (n - layer.kernel + 2 * layer.padding) % layer.stride:
                return None
            n = layer.size(n)
            if n < 1:
                return None
        return n

    def axis(self, name: str, dim: int, ndims_before: int = 0) -> NetworkAxis:
        minimum = next(n for n in range(1, 4000) if (self.size(n) or 0) >= 2)
        offset = (self.size(minimum) or 0) - int(minimum * self.scale)
        return NetworkAxis(
            name, minimum, self.step, False, (TensorAxis(dim),), (TensorAxis(dim, self.scale, offset),)
        )

    def reach(self, axis: NetworkAxis) -> int:
        """How far a cut is felt: where a tile begins, or ends, somewhere in a large image."""
        port = axis.outputs[0]
        assert port is not None
        begin, end = 4096 * axis.step, axis.minimum + 4096 * axis.step
        last, first = begin - 1, end
        for layer in self.layers:
            last, first = layer.last(last), layer.first(first)
        felt_after = (last + 1 + port.shift) / port.scale - begin
        felt_before = end - (first + port.shift) / port.scale
        return max(0, -int(-felt_after // 1), -int(-felt_before // 1))

    def network(
        self, ndim: int = 2, channels: int = 3, act: Callable[[], nn.Module] = nn.LeakyReLU
    ) -> nn.Module:
        torch.manual_seed(len(self.layers))
        space = nn.Conv2d if ndim == 2 else nn.Conv3d
        modules: list[nn.Module] = [space(1, channels, 1)]
        for layer in self.layers:
            modules += [layer.module(channels, ndim), act()]
        return nn.Sequential(*modules, space(channels, 1, 1)).eval()


_LAYERS = st.sampled_from(
    [
        Layer(3, padding=1),
        Layer(3),
        Layer(5, padding=2),
        Layer(3, dilation=3, padding=3),
        Layer(2, 2, pool=True),
        Layer(2, 2),
        Layer(4, 2, padding=1),
        Layer(2, 2, up=True),
        Layer(2, 2, pool=True, up=True),
    ]
)


def _fits(stack: Stack) -> bool:
    """Whether there are sizes that leave nothing over; at most three times halved or doubled."""
    scales = np.cumsum([0] + [(1 if x.up else -1) * (x.stride > 1) for x in stack.layers])
    if scales.min() < -3 or scales.max() > 2:
        return False
    sizes = [n for n in range(1, 200) if (stack.size(n) or 0) >= 2]
    return bool(sizes) and all((stack.size(sizes[0] + k * stack.step) or 0) >= 2 for k in (1, 2, 5))


# Random stacks that take some sizes without leaving anything over.
stacks = st.lists(_LAYERS, min_size=1, max_size=8).map(lambda x: Stack(tuple(x))).filter(_fits)


def basic_unet_path() -> Stack:
    """The longest way through MONAI's BasicUNet: down four times, two convolutions at each level, and up again."""
    two = (Layer(3, padding=1),) * 2
    down = (Layer(2, 2, pool=True), *two)
    up = (Layer(2, 2, up=True), *two)
    return Stack(two + 4 * down + 4 * up)


def torch_run(network: nn.Module) -> Run:
    """A module as a function of arrays; what it refuses is the package's fault, as of an engine."""

    def run(inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
        try:
            with torch.inference_mode():
                result = network(*(torch.from_numpy(a) for a in inputs if a is not None))
        except (RuntimeError, ValueError) as error:
            raise PackageError(str(error)) from error
        return [t.numpy() for t in ([result] if isinstance(result, torch.Tensor) else result)]

    return run


def onnx_bytes(network: nn.Module, *examples: torch.Tensor, outputs: int = 1) -> bytes:
    """A module exported to ONNX, all of whose dimensions but batch and channel are free."""
    names = [f"in{i}" for i in range(len(examples))]
    results = [f"out{i}" for i in range(outputs)]
    ndim = examples[0].ndim
    free = {n: {d: f"{n}_{d}" for d in range(2, ndim)} for n in names + results}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            examples,
            buffer,
            dynamo=False,
            opset_version=17,
            input_names=names,
            output_names=results,
            dynamic_axes=free,
        )
    return buffer.getvalue()


def onnx_run(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options)

    def run(inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
        feed = {i.name: a for i, a in zip(session.get_inputs(), inputs, strict=True) if a is not None}
        try:
            return list(session.run(None, feed))
        except Exception as error:  # onnxruntime's have no other base
            raise PackageError(str(error)) from error

    return run


def openvino_run(model: bytes) -> Run:
    core = import_openvino().Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
        try:
            found = compiled([a for a in inputs if a is not None])
        except RuntimeError as error:
            raise PackageError(str(error)) from error
        return [np.array(found[port]) for port in compiled.outputs]

    return run


RUNS: dict[str, Callable[[bytes], Run]] = {"onnxruntime": onnx_run, "openvino": openvino_run}


def same_axes(names: str, minimum: int, step: int, fixed: bool = False) -> list[NetworkAxis]:
    """Axes of (batch, channel, *names), along which the output is as large as the input."""
    return [
        NetworkAxis(a, minimum, step, fixed, (TensorAxis(2 + i),), (TensorAxis(2 + i),))
        for i, a in enumerate(names)
    ]


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def worst_beyond(
    run: Run, axes: Sequence[NetworkAxis], name: str, halo: int, size: int, tile: tuple[int, int]
) -> tuple[float, int]:
    """By hand, for one input and output: the largest difference of a tile [begin, end) less its halo, and how much is kept.

    As a fraction of the output's largest value.
    """
    axis = next(a for a in axes if a.name == name)
    port, out = axis.inputs[0], axis.outputs[0]
    assert port is not None
    assert out is not None
    shape = [1, 1] + [0] * len(axes)
    for a in axes:
        p = a.inputs[0]
        assert p is not None
        shape[p.dim] = size if a is axis else a.minimum + 2 * a.step
    image = noise(*shape, seed=3)
    begin, end = tile
    whole = np.moveaxis(run([image])[0], out.dim, -1)
    part = np.ascontiguousarray(np.moveaxis(np.moveaxis(image, port.dim, -1)[..., begin:end], -1, port.dim))
    cut = np.moveaxis(run([part])[0], out.dim, -1)
    first = int(begin * out.scale)
    worst, kept = 0.0, 0
    for i in range(cut.shape[-1]):
        start = (first + i + out.shift) / out.scale
        stop = (first + i + 1 + out.shift) / out.scale
        if (begin == 0 or start >= begin + halo) and (end == size or stop <= end - halo):
            kept += 1
            worst = max(worst, float(np.abs(cut[..., i] - whole[..., first + i]).max()))
    return worst / float(np.abs(whole).max()), kept
