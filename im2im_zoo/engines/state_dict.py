"""Run a PyTorch state dict in the network that the package names. This imports and runs Python code: with consent only.

The network comes from an installed library (by its dotted path) or from a file of the package (whose SHA-256
is verified before it is run). The weights themselves are read without unpickling objects.
"""

import functools
import importlib
import importlib.util
import re
import types
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.engines.torch_call import TorchCaller, channels_last, torch_device

if TYPE_CHECKING:
    import torch


class StateDictEngine:
    """A network built from its Python source, with the package's weights, in evaluation mode."""

    weights_format = "pytorch_state_dict"
    backend = "torch"

    def __init__(
        self,
        weights: Path,
        *,
        architecture: Any,
        root: Path,
        allow_code: bool = False,
        device: str = "cpu",
        threads: int | None = None,
        precision: str = "float32",
    ) -> None:
        self.device, self.precision = device, precision
        if architecture is None:
            raise PackageError(
                f"{weights} (pytorch_state_dict): the RDF gives no `architecture` to load it into"
            )
        _check_library(architecture)
        if not allow_code:
            raise PackageError(_consent(weights, architecture))
        place = torch_device(weights, self.weights_format, device)

        def load(last: bool) -> Any:
            network = _build(weights, architecture, root)
            _load_weights(network, weights)
            network = network.to(place).eval()
            return channels_last(network) if last else network

        self._caller = TorchCaller(load, weights, self.weights_format, place, threads, precision)

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`."""
        return self._caller(inputs)


def _check_library(architecture: Any) -> None:
    """What is not installed is said first: no consent would help. Looks the library up, imports nothing."""
    name = str(getattr(architecture, "import_from", "")).split(".")[0]
    if name and importlib.util.find_spec(name) is None:
        raise PackageError(_needs(architecture, "is not installed"))


def _needs(architecture: Any, why: object) -> str:
    path = f"{architecture.import_from}.{architecture.callable}"
    return f"needs {path.split('.')[0]}: its architecture is `{path}` ({why}); ONNX or TorchScript weights would need nothing"


def _consent(weights: Path, architecture: Any) -> str:
    where = getattr(architecture, "source", None) or getattr(architecture, "import_from", "?")
    kind = "its own file" if hasattr(architecture, "source") else "the installed library"
    return (
        f"{weights} (pytorch_state_dict): running these weights runs Python code that the package names, "
        f"{architecture.callable!r} from {kind} {str(where)!r}; if you trust it, say so with --allow-code "
        "(allow_code=True), or use its onnx or torchscript weights, if it has them: they need no consent"
    )


def _build(weights: Path, architecture: Any, root: Path) -> "torch.nn.Module":
    import torch

    if hasattr(architecture, "source"):
        factory = _from_file(architecture, root)
    else:
        factory = _from_library(architecture)
    name = f"{architecture.callable}({', '.join(f'{k}={v!r}' for k, v in architecture.kwargs.items())})"
    try:
        network = factory(**architecture.kwargs)
    except Exception as error:  # the package's own code may raise anything
        raise PackageError(
            f"{weights} (pytorch_state_dict): the architecture {name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise PackageError(
            f"{weights} (pytorch_state_dict): the architecture {name} is {type(network).__name__}, no torch module"
        )
    return network


def _from_library(architecture: Any) -> Callable[..., Any]:
    try:
        module = importlib.import_module(str(architecture.import_from))
        found = functools.reduce(getattr, str(architecture.callable).split("."), module)
    except (ImportError, AttributeError) as error:
        raise PackageError(_needs(architecture, error)) from error
    return found  # type: ignore[return-value]


def _from_file(architecture: Any, root: Path) -> Callable[..., Any]:
    text = str(architecture.source)
    path = (root / text).resolve()
    if "://" in text or not path.is_relative_to(root.resolve()) or not path.is_file():
        raise PackageError(
            f"the architecture's file {text!r} is not in the package {root}; nothing is fetched"
        )
    # Read once, so that what is verified is what runs.
    content = path.read_bytes()
    expected = architecture.sha256
    actual = sha256_of(content)
    if expected is not None and str(expected) != actual:
        raise PackageError(
            f"{path}: the architecture's SHA-256 is {actual}, but the RDF gives {expected}: the file was changed and "
            "is not run; download the package again"
        )
    module = types.ModuleType(f"im2im_zoo_architecture_{actual[:16]}")
    module.__file__ = str(path)
    try:
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 with the person's consent
        return functools.reduce(getattr, str(architecture.callable).split("."), module)  # type: ignore[return-value]
    except Exception as error:  # the package's own code may raise anything
        raise PackageError(
            f"{path}: the architecture {architecture.callable!r} cannot be imported from it: "
            f"{type(error).__name__}: {error}"
        ) from error


def read_state_dict(weights: Path) -> dict[str, Any]:
    """The numbers of a state dict by their names; runs nothing that the file holds.

    Raises:
        PackageError: it holds anything else, or is damaged.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of how old the file's pickle is
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes of the unpickler can be anything
        raise PackageError(
            f"{weights}: the pytorch_state_dict weights cannot be loaded: {_reason(error)}; they must be a plain "
            "state dict (torch.save(network.state_dict(), ...))"
        ) from error
    if not isinstance(state, dict):
        raise PackageError(f"{weights}: the file holds {type(state).__name__}, no state dict")
    return state


def _reason(error: Exception) -> str:
    """What torch says of a file, without its advice how to load it anyway."""
    text = " ".join(str(error).split())
    named = re.search(r"GLOBAL (\S+)", text)
    if named is not None:
        return f"the file names {named[1]}, which is code and no number; nothing of it was run"
    return text.rpartition("WeightsUnpickler error: ")[2].partition(" Check the documentation")[0][:400]


def _load_weights(network: "torch.nn.Module", weights: Path) -> None:
    state = read_state_dict(weights)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise PackageError(
            f"{weights}: the state dict does not fit the network {type(network).__name__}: "
            f"{' '.join(str(error).split())[:600]}; the package's architecture and weights disagree"
        ) from error
