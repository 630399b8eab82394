"""Small real packages for tests: a seeded U-Net, exported and described as an author would do it with bioimageio.spec."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bioimageio.spec import ValidationContext
from bioimageio.spec.model import v0_5 as spec
from bioimageio.spec.utils import write_yaml
from small_unet import SmallUNet
from torch import nn

ARCHITECTURE = Path(__file__).with_name("small_unet.py").read_text()

# Voxels that an input reaches along y and x (and z where it is pooled once): less than these.
REACH = {1: 8, 2: 16}


class ChannelsLast(nn.Module):
    """A network whose tensors are batch, y, x, channel."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Doubling(nn.Module):
    """A network whose output has twice the voxels along y and x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.interpolate(self.conv(x), scale_factor=2.0)


class Halving(nn.Module):
    """A network whose output has half the voxels along y and x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.avg_pool2d(self.conv(x), 2)


def small_unet(**arguments: int) -> nn.Module:
    """A U-Net with seeded random weights, whose output varies over about [-1, 1]."""
    torch.manual_seed(0)
    network = SmallUNet(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network


def build_package(
    folder: Path,
    network: nn.Module,
    *,
    axes: Sequence[str] = ("batch", "channel", "y", "x"),
    output_axes: Sequence[str] | None = None,
    channels: Sequence[str] = ("nuclei",),
    out_channels: Sequence[str] = ("probability",),
    minimum: dict[str, int] | int = 36,
    step: dict[str, int] | int = 4,
    fixed: bool = False,
    halo: dict[str, int] | int = 16,
    scale: float = 1.0,
    preprocessing: Sequence[Any] = (),
    postprocessing: Sequence[Any] = (),
    weights: Sequence[str] = ("torchscript",),
    output_dtype: str = "float32",
    example: torch.Tensor | None = None,
    name: str = "Small test model",
    architecture: dict[str, Any] | None = None,
    sources: dict[str, str] | None = None,
) -> Path:
    """Write a package folder and return it. `minimum`, `step` and `halo` are of all space axes, or by axis."""
    folder.mkdir(parents=True)
    for file, text in (sources or {}).items():
        (folder / file).write_text(text)
    sizes = {"batch": 1, "channel": len(channels)}
    tensors = example if example is not None else torch.zeros([sizes.get(a, 16) for a in axes])
    entries = {w: _EXPORT[w](folder, network, tensors, axes, architecture or {}) for w in weights}
    for later in list(entries.values())[1:]:
        later["parent"] = weights[0]
    inputs = [_input_axis(a, channels, minimum, step, fixed) for a in axes]
    outputs = [_output_axis(a, out_channels, halo, scale) for a in output_axes or axes]
    with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
        description = spec.ModelDescr(
            name=name,
            description="A small network with random weights.",
            version=spec.Version("0.3.1"),
            authors=[spec.Author(name="Test")],
            cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
            license=spec.LicenseId("MIT"),
            inputs=[
                spec.InputTensorDescr(id=spec.TensorId("raw"), axes=inputs, preprocessing=list(preprocessing))
            ],
            outputs=[
                spec.OutputTensorDescr(
                    id=spec.TensorId("out"),
                    axes=outputs,
                    postprocessing=list(postprocessing),
                    data=spec.IntervalOrRatioDataDescr(type=output_dtype),
                )
            ],
            weights=entries,
        )
    write_yaml(description, folder / "rdf.yaml")
    return folder


def _at(value: dict[str, int] | int, axis: str) -> int:
    return value if isinstance(value, int) else value[axis]


def _input_axis(
    axis: str, channels: Sequence[str], minimum: dict[str, int] | int, step: dict[str, int] | int, fixed: bool
) -> Any:
    if axis == "batch":
        return spec.BatchAxis()
    if axis == "channel":
        return spec.ChannelAxis(channel_names=[spec.Identifier(c) for c in channels])
    least = _at(minimum, axis)
    size = least if fixed else spec.ParameterizedSize(min=least, step=_at(step, axis))
    return spec.SpaceInputAxis(id=spec.AxisId(axis), size=size)


def _output_axis(axis: str, channels: Sequence[str], halo: dict[str, int] | int, scale: float) -> Any:
    if axis == "batch":
        return spec.BatchAxis()
    if axis == "channel":
        return spec.ChannelAxis(channel_names=[spec.Identifier(c) for c in channels])
    size = spec.SizeReference(tensor_id=spec.TensorId("raw"), axis_id=spec.AxisId(axis))
    if _at(halo, axis):
        return spec.SpaceOutputAxisWithHalo(
            id=spec.AxisId(axis), size=size, halo=_at(halo, axis), scale=scale
        )
    return spec.SpaceOutputAxis(id=spec.AxisId(axis), size=size, scale=scale)


def _entry(path: Path) -> dict[str, Any]:
    return {"source": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _torchscript(folder: Path, network: nn.Module, *_: Any) -> dict[str, Any]:
    path = folder / "weights.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(network).save(str(path))
    return {**_entry(path), "pytorch_version": "2.6"}


def _onnx(
    folder: Path, network: nn.Module, example: torch.Tensor, axes: Sequence[str], *_: Any
) -> dict[str, Any]:
    path = folder / "weights.onnx"
    names = {i: a for i, a in enumerate(axes) if a != "channel"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["raw"],
            output_names=["out"],
            dynamic_axes={"raw": names, "out": names},
        )
    return {**_entry(path), "opset_version": 17}


def _state_dict(
    folder: Path, network: nn.Module, example: torch.Tensor, axes: Sequence[str], architecture: dict[str, Any]
) -> dict[str, Any]:
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return {**_entry(path), "pytorch_version": "2.6", "architecture": architecture}


_EXPORT = {"torchscript": _torchscript, "onnx": _onnx, "pytorch_state_dict": _state_dict}


def build_model(
    folder: Path,
    network: nn.Module,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    examples: Sequence[torch.Tensor] = (),
    name: str = "Model of many tensors",
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a package of any tensors, with TorchScript weights, and return its folder.

    Args:
        inputs, outputs: the spec's descriptions; test tensors are added to them where there are examples.
        examples: one an input, after preprocessing, which is taken to change nothing.
    """
    folder.mkdir(parents=True)
    entry = _torchscript(folder, network)
    inputs, outputs = list(inputs), list(outputs)
    if examples:
        with torch.no_grad():
            found = network(*examples)
        results = list(found) if isinstance(found, list | tuple) else [found]
        inputs = [_with_test(folder, d, t) for d, t in zip(inputs, examples, strict=True)]
        outputs = [_with_test(folder, d, t) for d, t in zip(outputs, results, strict=True)]
    with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
        description = spec.ModelDescr(
            name=name,
            description="A small network with random weights.",
            version=spec.Version("0.3.1"),
            authors=[spec.Author(name="Test")],
            cite=[spec.CiteEntry(text="none", url=spec.HttpUrl("https://example.com/"))],
            license=spec.LicenseId("MIT"),
            inputs=inputs,
            outputs=outputs,
            weights={"torchscript": entry},
            **({} if config is None else {"config": config}),
        )
    write_yaml(description, folder / "rdf.yaml")
    return folder


def _with_test(folder: Path, described: Any, tensor: torch.Tensor) -> Any:
    path = folder / f"test_{described.id}.npy"
    np.save(path, tensor.detach().numpy())
    with ValidationContext(root=folder, perform_io_checks=False, log_warnings=False):
        return described.model_copy(update={"test_tensor": spec.FileDescr(source=path)})


def tensor_axis(kind: str, size: Any = None, **more: Any) -> Any:
    """An axis of an input: `batch`, `channel` (its names), `index`, `time` or a space axis (a size or (min, step))."""
    if kind == "batch":
        return spec.BatchAxis()
    if kind == "channel":
        return spec.ChannelAxis(channel_names=[spec.Identifier(c) for c in size])
    length = spec.ParameterizedSize(min=size[0], step=size[1]) if isinstance(size, tuple) else size
    if kind == "index":
        return spec.IndexInputAxis(size=length, **more)
    if kind == "time":
        return spec.TimeInputAxis(size=length, **more)
    return spec.SpaceInputAxis(id=spec.AxisId(kind), size=length, **more)


def follows(tensor: str, axis: str, offset: int = 0) -> Any:
    """The size of an axis that is that of another."""
    return spec.SizeReference(tensor_id=spec.TensorId(tensor), axis_id=spec.AxisId(axis), offset=offset)


def output_axis(kind: str, size: Any = None, **more: Any) -> Any:
    """An axis of an output, as `tensor_axis`; with `halo` one that has a halo."""
    if kind in ("batch", "channel"):
        return tensor_axis(kind, size)
    if kind == "index":
        return spec.IndexOutputAxis(size=size, **more)
    if kind == "time":
        made = spec.TimeOutputAxisWithHalo if "halo" in more else spec.TimeOutputAxis
        return made(size=size, **more)
    made = spec.SpaceOutputAxisWithHalo if "halo" in more else spec.SpaceOutputAxis
    return made(id=spec.AxisId(kind), size=size, **more)


def tensor_in(name: str, axes: Sequence[Any], **more: Any) -> Any:
    """An input tensor."""
    return spec.InputTensorDescr(id=spec.TensorId(name), axes=list(axes), **more)


def tensor_out(name: str, axes: Sequence[Any], dtype: str = "float32", **more: Any) -> Any:
    """An output tensor."""
    data = spec.IntervalOrRatioDataDescr(type=dtype)
    return spec.OutputTensorDescr(id=spec.TensorId(name), axes=list(axes), data=data, **more)
