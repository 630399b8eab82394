"""What an engine is, and opening the one that a weight format needs. Arrays in, arrays out: no axes, no images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.errors import PackageError


@runtime_checkable
class Engine(Protocol):
    """A network that is loaded and ready to run."""

    weights_format: str

    def __call__(self, inputs: Sequence[NDArray[np.generic]]) -> list[NDArray[np.generic]]:
        """Run the network once.

        Args:
            inputs: one array for each input tensor of the package, in its axis order.

        Returns:
            One contiguous array for each output tensor, in its axis order.

        Raises:
            PackageError: the network refuses the arrays; the message names the weights and the shapes.
        """
        ...


def open_engine(
    weights_format: str,
    weights: Path,
    *,
    architecture: Any = None,
    root: Path | None = None,
    allow_code: bool = False,
    device: str = "cpu",
    threads: int | None = None,
) -> Engine:
    """Load a network from its weights.

    Args:
        weights_format: `onnx`, `torchscript` or `pytorch_state_dict`.
        weights: the file.
        architecture: the spec's description of the network's source, for `pytorch_state_dict`.
        root: folder of the package, in which the architecture's file lies (default: that of the weights).
        allow_code: whether Python code of the package, or of a library that it names, may run.
        device: `cpu`, `cuda` or `cuda:<number>`.
        threads: threads within one call (default: as the library chooses).

    Raises:
        PackageError: a format that cannot be run, a file that cannot be loaded, a device that is not there, or
            code that would have to run without consent.
    """
    if not weights.is_file():
        raise PackageError(
            f"the {weights_format} weights {weights} are missing; download the complete package"
        )
    if threads is not None and threads < 1:
        raise PackageError(f"threads is {threads}; give at least 1")
    if weights_format == "onnx":
        from im2im_zoo.engines.onnx import OnnxEngine

        return OnnxEngine(weights, device=device, threads=threads)
    if weights_format == "torchscript":
        from im2im_zoo.engines.torchscript import TorchScriptEngine

        return TorchScriptEngine(weights, device=device, threads=threads)
    if weights_format == "pytorch_state_dict":
        from im2im_zoo.engines.state_dict import StateDictEngine

        return StateDictEngine(
            weights,
            architecture=architecture,
            root=root or weights.parent,
            allow_code=allow_code,
            device=device,
            threads=threads,
        )
    raise PackageError(
        f"{weights}: weights of the format {weights_format!r} cannot be run here; "
        "there are engines for onnx, torchscript and pytorch_state_dict"
    )


def call_error(
    weights: Path, weights_format: str, inputs: Sequence[NDArray[Any]], error: Exception
) -> PackageError:
    """The error for a network that refuses its inputs, or runs out of memory on them."""
    shapes = ", ".join(f"{a.shape} {a.dtype}" for a in inputs)
    # The cause is at the start or at the end of a long trace, depending on the library.
    text = " ".join(str(error).split())
    short = text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}"
    return PackageError(
        f"{weights} ({weights_format}): the network failed on input of shape {shapes}: {short}; the sizes that the "
        "RDF declares may not be those that the network takes, or the memory did not suffice (use a smaller tile)"
    )
