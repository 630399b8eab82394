"""Weights of a network in the formats that consumers read, each checked against the network.

TorchScript is for Fiji's libtorch and ilastik, ONNX (opset 17, IR 8: old runtimes read no newer) for programs without
torch, the state dict for fine-tuning in Python.
"""

import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from im2im_zoo.core.errors import ComponentError, PackageError
from im2im_zoo.engines import open_engine
from im2im_zoo.networks import Grid, as_call
from im2im_zoo.packaging.comparison import TOLERANCE, check_sizes, difference, example_input
from im2im_zoo.packaging.consumers.torchscript_ops import OLDEST, needed_torch
from im2im_zoo.packaging.export.architecture import FILE as ARCHITECTURE
from im2im_zoo.packaging.export.architecture import write_architecture
from im2im_zoo.packaging.export.onnx_export import onnx_bytes
from im2im_zoo.recipe.components import Component, build_component

if TYPE_CHECKING:
    from torch import nn

FORMATS = ("onnx", "torchscript", "pytorch_state_dict")
FILES = {
    "onnx": "weights.onnx",
    "torchscript": "weights_torchscript.pt",
    "pytorch_state_dict": "weights_state_dict.pt",
}
OPSET = 17
_MAX_IR = 8
NEWEST_OPSET = 23  # of torch's exporter


@dataclass
class Weights:
    """Written weights, by format.

    Attributes:
        files: paths.
        comments: remarks for the RDF and the README.
        errors: largest difference to the network, as a fraction of the largest output.
        left_out: reasons for formats that were not written.
        architecture: the RDF's entry, if there is a state dict.
        opset: opset of the ONNX file.
    """

    opset: int = OPSET
    files: dict[str, Path] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    architecture: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class _Writing:
    made: Weights
    network: "nn.Module"
    folder: Path
    grid: Grid
    image: NDArray[Any]
    tensors: tuple[str, str]
    component: Component | None
    allow_code: Sequence[str]
    root: Path | None


def write_weights(
    network: "nn.Module",
    folder: Path,
    formats: Sequence[str],
    *,
    grid: Grid,
    image: NDArray[Any],
    tensors: tuple[str, str],
    architecture: Component | None = None,
    allow_code: Sequence[str] = (),
    root: Path | None = None,
    opset: int = OPSET,
) -> Weights:
    """Write a network's weights in several formats and check each against it at several sizes and batch sizes.

    Args:
        network: on the CPU, in evaluation mode; it is not changed.
        folder: folder of the files.
        formats: some of `FORMATS`.
        grid: the sizes at which it runs.
        image: an input of the network (batch, channel, *space), whose channels and intensities the compared inputs have.
        tensors: names of the input and the output tensor.
        architecture: component that built the network, for the state dict.
        allow_code: packages whose code the architecture may use, see `components.resolve_component`.
        root: folder of the recipe's own modules; the architecture's module is copied into the package.
        opset: opset of the ONNX file; beyond 17, older runtimes do not read it.
    Raises:
        PackageError: an unknown format, or none could be written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise PackageError(
            f"weights {', '.join(map(repr, unknown)) or '(none)'}: the formats are {', '.join(FORMATS)}; name at least one"
        )
    made = Weights(opset)
    writing = _Writing(made, network, folder, grid, image, tensors, architecture, allow_code, root)
    for name in formats:
        try:
            if name == "onnx":
                _write_onnx(writing)
            elif name == "torchscript":
                _write_torchscript(writing)
            else:
                made.architecture = _write_state_dict(writing)
        except _LeftOutError as reason:
            made.left_out[name] = str(reason)
            (folder / FILES[name]).unlink(missing_ok=True)
            if name == "pytorch_state_dict":
                (folder / ARCHITECTURE).unlink(missing_ok=True)
            made.files.pop(name, None)
    if not made.files:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in made.left_out.items())
        raise PackageError(f"the network can be written in none of the formats: {reasons}")
    return made


class _LeftOutError(Exception):
    """Reason why a format cannot reproduce the network."""


def _write_onnx(writing: _Writing) -> None:
    import onnx

    # Into memory first: a failing exporter only leaves out its format, a full disk must be an error.
    path, opset = writing.folder / FILES["onnx"], writing.made.opset
    try:
        with _quiet():
            content = onnx_bytes(
                copy.deepcopy(writing.network), writing.grid, writing.image.shape[1], writing.tensors, opset
            )
    except Exception as error:
        raise _LeftOutError(f"torch's ONNX exporter fails on this network: {_short(error)}") from error
    path.write_bytes(content)
    model = onnx.load_from_string(content)
    if opset <= OPSET and model.ir_version > _MAX_IR:
        raise _LeftOutError(f"the exporter wrote IR {model.ir_version}; consumers read up to {_MAX_IR}")
    _check(writing, "onnx")
    dynamic = "batch and space axes are dynamic" if any(writing.grid.step) else "the batch axis is dynamic"
    writing.made.comments["onnx"] = f"Opset {opset}, IR {model.ir_version}; {dynamic}."


def _write_torchscript(writing: _Writing) -> None:
    """Write TorchScript, scripted or traced: the first that libtorch 1.13 loads, else the first that any version loads."""
    reasons: list[str] = []
    for oldest in (OLDEST, None):
        for how in ("scripted", "traced"):
            try:
                _save_torchscript(writing, how)
                needed = needed_torch(writing.folder / FILES["torchscript"])
                if oldest is not None and needed > oldest:
                    raise _LeftOutError(f"it needs torch {_version(needed)}")
                _check(writing, "torchscript")
            except _LeftOutError as reason:
                reasons.append(f"{how}: {reason}")
                continue
            newer = "" if needed == OLDEST else f" Needs torch {_version(needed)} or newer."
            writing.made.comments["torchscript"] = f"{how.capitalize()} in evaluation mode.{newer}"
            return
    raise _LeftOutError("; ".join(dict.fromkeys(reasons)))


def _version(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


def _save_torchscript(writing: _Writing, how: str) -> None:
    import torch

    network, content = copy.deepcopy(writing.network), io.BytesIO()
    example = torch.zeros(
        1, writing.image.shape[1], *(m + s for m, s in zip(writing.grid.min, writing.grid.step, strict=True))
    )
    try:
        with _quiet(), torch.no_grad():
            if how == "scripted":
                module = torch.jit.script(network)
            else:
                module = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(module, content)
    except Exception as error:
        raise _LeftOutError(_short(error)) from error
    (writing.folder / FILES["torchscript"]).write_bytes(content.getvalue())


def _write_state_dict(writing: _Writing) -> dict[str, Any]:
    import torch

    if writing.component is None:
        raise _LeftOutError("the component that built the network is not known")
    try:
        described = write_architecture(writing.component, writing.folder, writing.root)
    except PackageError as error:
        raise _LeftOutError(str(error)) from error
    try:
        rebuilt = build_component(writing.component, "network", allow_code=writing.allow_code).eval()
        rebuilt.load_state_dict(writing.network.state_dict(), strict=True)
    except (ComponentError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _LeftOutError(
            f"{writing.component.callable} built again does not accept these weights: {_short(error)}"
        ) from error
    content = io.BytesIO()
    torch.save(writing.network.state_dict(), content)
    (writing.folder / FILES["pytorch_state_dict"]).write_bytes(content.getvalue())
    _check(writing, "pytorch_state_dict", described)
    writing.made.comments["pytorch_state_dict"] = f"{writing.component.callable} of " + (
        "a file of the package." if "source" in described else "the library in `dependencies`."
    )
    return described


def architecture_of(described: Mapping[str, Any]) -> Any:
    """Return the spec's object of an RDF's architecture; its file is checked when it is run."""
    from bioimageio.spec import ValidationContext
    from bioimageio.spec.model import v0_5 as spec

    kind = spec.ArchitectureFromFileDescr if "source" in described else spec.ArchitectureFromLibraryDescr
    with ValidationContext(perform_io_checks=False):
        return kind.model_validate(described)


def _check(writing: _Writing, name: str, architecture: Mapping[str, Any] | None = None) -> None:
    """Compare the written file with the network.

    Raises:
        _LeftOutError: the file fails at a size, or gives another result.
    """
    path = writing.folder / FILES[name]
    try:
        entry = architecture_of(architecture) if architecture else None
        engine = open_engine(name, path, architecture=entry, root=writing.folder, allow_code=True)
        worst = 0.0
        for batch, space in check_sizes(writing.grid):
            image = example_input(batch, writing.image, space)
            worst = max(worst, difference(engine([image])[0], as_call(writing.network)(image)))
    except PackageError as error:
        raise _LeftOutError(str(error)) from error
    if not worst <= TOLERANCE:
        raise _LeftOutError(f"its output differs from the network's by {worst:.2g} of the largest value")
    writing.made.files[name] = path
    writing.made.errors[name] = worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings that users cannot act on: torch's exporters for today's programs are deprecated."""
    import torch

    with warnings.catch_warnings():
        for pattern in (r".*torch\.jit", r".*legacy TorchScript-based ONNX", r".*dynamo"):
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", message=pattern, category=category)
        # Values that depend on the size are detected by running the result at other sizes.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", module=r"torch\.onnx|torch\.jit|monai")
        warnings.filterwarnings("ignore", message=".*(Converting a tensor|Iterating over a tensor)")
        yield


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
