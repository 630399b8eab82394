"""Weights of a network in the formats that consumers read, each checked against the network. No metadata here.

TorchScript is what Fiji's libtorch and ilastik read, ONNX (opset 17, IR 8: old runtimes read no newer) what runs
without torch, the state dict what Python users fine-tune.
"""

import copy
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True)
class Weights:
    """What was written: files by format, why a format was left out, and the largest difference to the network.

    `errors` are fractions of the largest output. `architecture` is the RDF's, if there is a state dict.
    """

    files: Mapping[str, Path]
    comments: Mapping[str, str]
    errors: Mapping[str, float]
    left_out: Mapping[str, str]
    architecture: Mapping[str, Any] | None = None
    opset: int = OPSET


@dataclass
class _Writing:
    network: "nn.Module"
    folder: Path
    grid: Grid
    channels: int
    tensors: tuple[str, str]
    component: Component | None
    allow_code: Sequence[str] = ()
    root: Path | None = None
    opset: int = OPSET
    files: dict[str, Path] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def write_weights(
    network: "nn.Module",
    folder: Path,
    formats: Sequence[str],
    *,
    grid: Grid,
    channels: int,
    tensors: tuple[str, str],
    architecture: Component | None = None,
    allow_code: Sequence[str] = (),
    root: Path | None = None,
    opset: int = OPSET,
) -> Weights:
    """Write a network's weights in several formats and check each against it at several sizes and batch sizes.

    Args:
        network: on the CPU, in evaluation mode; it is not changed.
        folder: where the files go.
        formats: of `FORMATS`.
        grid: the sizes at which it runs.
        channels: of its input.
        tensors: names of the input and the output tensor.
        architecture: what the network was built from, for the state dict.
        allow_code: packages whose code the architecture may use, see `components.resolve_component`.
        root: folder of the modules that are the recipe's own; one that the architecture is of goes into the package.
        opset: of the ONNX file; beyond 17, older runtimes do not read it.
    Raises:
        PackageError: an unknown format, or none could be written; says why each was left out.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise PackageError(
            f"weights {', '.join(map(repr, unknown)) or '(none)'}: the formats are {', '.join(FORMATS)}; name at least one"
        )
    work = _Writing(network, folder, grid, channels, tensors, architecture, allow_code, root, opset)
    described = None
    for name in formats:
        try:
            if name == "onnx":
                _write_onnx(work)
            elif name == "torchscript":
                _write_torchscript(work)
            else:
                described = _write_state_dict(work)
        except _LeftOutError as reason:
            work.left_out[name] = str(reason)
            (folder / FILES[name]).unlink(missing_ok=True)
            if name == "pytorch_state_dict":
                (folder / ARCHITECTURE).unlink(missing_ok=True)
            work.files.pop(name, None)
    if not work.files:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in work.left_out.items())
        raise PackageError(f"the network can be written in none of the formats: {reasons}")
    return Weights(work.files, work.comments, work.errors, work.left_out, described, opset)


class _LeftOutError(Exception):
    """Why a format cannot be written truthfully."""


def _write_onnx(work: _Writing) -> None:
    import onnx

    # Into memory first: an exporter that fails leaves its format out, a full disk must not.
    path = work.folder / FILES["onnx"]
    try:
        with _quiet():
            content = onnx_bytes(
                copy.deepcopy(work.network), work.grid, work.channels, work.tensors, work.opset
            )
    except Exception as error:
        raise _LeftOutError(f"torch's ONNX exporter fails on this network: {_short(error)}") from error
    path.write_bytes(content)
    model = onnx.load_from_string(content)
    if work.opset <= OPSET and model.ir_version > _MAX_IR:
        raise _LeftOutError(f"the exporter wrote IR {model.ir_version}; consumers read up to {_MAX_IR}")
    _check(work, "onnx")
    dynamic = "batch and space axes are dynamic" if any(work.grid.step) else "the batch axis is dynamic"
    work.comments["onnx"] = f"Opset {work.opset}, IR {model.ir_version}; {dynamic}."


def _write_torchscript(work: _Writing) -> None:
    """Scripted or traced, the first that libtorch 1.13 loads; else the first that loads anywhere."""
    reasons: list[str] = []
    for oldest in (OLDEST, None):
        for how in ("scripted", "traced"):
            try:
                _save_torchscript(work, how)
                needed = needed_torch(work.folder / FILES["torchscript"])
                if oldest is not None and needed > oldest:
                    raise _LeftOutError(f"it needs torch {_version(needed)}")
                _check(work, "torchscript")
            except _LeftOutError as reason:
                reasons.append(f"{how}: {reason}")
                continue
            newer = "" if needed == OLDEST else f" Needs torch {_version(needed)} or newer."
            work.comments["torchscript"] = f"{how.capitalize()} in evaluation mode.{newer}"
            return
    raise _LeftOutError("; ".join(dict.fromkeys(reasons)))


def _version(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))


def _save_torchscript(work: _Writing, how: str) -> None:
    import torch

    network, content = copy.deepcopy(work.network), io.BytesIO()
    example = torch.zeros(
        1, work.channels, *(m + s for m, s in zip(work.grid.min, work.grid.step, strict=True))
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
    (work.folder / FILES["torchscript"]).write_bytes(content.getvalue())


def _write_state_dict(work: _Writing) -> dict[str, Any]:
    import torch

    if work.component is None:
        raise _LeftOutError("it is not known what the network was built from")
    try:
        described = write_architecture(work.component, work.folder, work.root)
    except PackageError as error:
        raise _LeftOutError(str(error)) from error
    try:
        rebuilt = build_component(work.component, "network", allow_code=work.allow_code).eval()
        rebuilt.load_state_dict(work.network.state_dict(), strict=True)
    except (ComponentError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise _LeftOutError(
            f"{work.component.callable} built anew does not take these weights: {_short(error)}"
        ) from error
    content = io.BytesIO()
    torch.save(work.network.state_dict(), content)
    (work.folder / FILES["pytorch_state_dict"]).write_bytes(content.getvalue())
    _check(work, "pytorch_state_dict", described)
    work.comments["pytorch_state_dict"] = f"{work.component.callable} of " + (
        "a file of the package." if "source" in described else "the library in `dependencies`."
    )
    return described


def architecture_of(described: Mapping[str, Any]) -> Any:
    """The spec's object of what the RDF says of an architecture; its file is looked at when it is run."""
    from bioimageio.spec import ValidationContext
    from bioimageio.spec.model import v0_5 as spec

    kind = spec.ArchitectureFromFileDescr if "source" in described else spec.ArchitectureFromLibraryDescr
    with ValidationContext(perform_io_checks=False):
        return kind.model_validate(described)


def _check(work: _Writing, name: str, architecture: Mapping[str, Any] | None = None) -> None:
    """Compare the written file with the network.

    Raises:
        _LeftOutError: it fails at a size, or gives something else.
    """
    path = work.folder / FILES[name]
    try:
        entry = architecture_of(architecture) if architecture else None
        engine = open_engine(name, path, architecture=entry, root=work.folder, allow_code=True)
        worst = 0.0
        for batch, space in check_sizes(work.grid):
            image = example_input(batch, work.channels, space)
            worst = max(worst, difference(engine([image])[0], as_call(work.network)(image)))
    except PackageError as error:
        raise _LeftOutError(str(error)) from error
    if not worst <= TOLERANCE:
        raise _LeftOutError(f"its output differs from the network's by {worst:.2g} of the largest value")
    work.files[name] = path
    work.errors[name] = worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from people what they can do nothing about: that torch's exporters for today's consumers are old."""
    import torch

    with warnings.catch_warnings():
        for pattern in (r".*torch\.jit", r".*legacy TorchScript-based ONNX", r".*dynamo"):
            for category in (DeprecationWarning, FutureWarning, UserWarning):
                warnings.filterwarnings("ignore", message=pattern, category=category)
        # Values that depend on the size are looked for by running the result at other sizes.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.filterwarnings("ignore", module=r"torch\.onnx|torch\.jit|monai")
        warnings.filterwarnings("ignore", message=".*(Converting a tensor|Iterating over a tensor)")
        yield


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}"
