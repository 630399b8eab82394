"""Run a PyTorch state dict in the network that the package names. This imports and runs Python code: with consent only.

The network comes from an installed library (by its dotted path) or from a file of the package (whose SHA-256
is verified before it is run). The weights themselves are read without unpickling objects.
"""

import functools
import importlib
import re
import types
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from im2im_zoo.core.errors import MissingLibraryError, PackageError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.core.moved_names import current_name
from im2im_zoo.engines.base import RunOptions, SafetyCheck, Weights, has_module, one_line
from im2im_zoo.engines.torch_module import TorchEngine, channels_last
from im2im_zoo.engines.zip_file import open_zip, safety_check

if TYPE_CHECKING:
    import torch


@safety_check
def check_state_dict(weights: Weights) -> None:
    """Refuse a zip that two readers read differently; the file is read without unpickling objects."""
    if zipfile.is_zipfile(weights.path):
        open_zip(weights.path).close()


class StateDictEngine(TorchEngine):
    """A network built from its Python source, with the package's weights, in evaluation mode."""

    formats: ClassVar[Mapping[str, SafetyCheck]] = {"pytorch_state_dict": check_state_dict}
    rank = 60
    runs_code = True

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        if weights.architecture is None:
            raise PackageError(f"{weights}: the RDF gives no `architecture` to load it into")
        _check_library(weights.architecture)
        if not weights.allow_code:
            raise PackageError(_missing_consent(weights))
        super().__init__(weights, options)

    def load(self, device: Any, last: bool) -> Any:
        """Build the network and load its weights; see `TorchEngine`."""
        network = _build_network(self.weights)
        _load_weights(network, self.weights.path)
        network = network.to(device).eval()
        return channels_last(network) if last else network


def _check_library(architecture: Any) -> None:
    """Refuse a network of a library that is not installed, before asking for consent. Imports nothing."""
    name = str(getattr(architecture, "import_from", "")).split(".")[0]
    if name and not has_module(name):
        raise MissingLibraryError(_missing_library(architecture, "is not installed"))


def _missing_library(architecture: Any, why: object) -> str:
    path = f"{architecture.import_from}.{architecture.callable}"
    return f"needs {path.split('.')[0]}: its architecture is `{path}` ({why}); ONNX or TorchScript weights would need nothing"


def _missing_consent(weights: Weights) -> str:
    architecture = weights.architecture
    where = getattr(architecture, "source", None) or getattr(architecture, "import_from", "?")
    kind = "its own file" if hasattr(architecture, "source") else "the installed library"
    return (
        f"{weights}: running these weights runs Python code that the package names, "
        f"{architecture.callable!r} from {kind} {str(where)!r}; if you trust it, allow it with --allow-code "
        "(allow_code=True), or use its onnx or torchscript weights, if it has them: they need no consent"
    )


def _build_network(weights: Weights) -> "torch.nn.Module":
    import torch

    architecture = weights.architecture
    if hasattr(architecture, "source"):
        factory = _import_from_file(architecture, weights.root)
    else:
        factory = _import_from_library(architecture)
    name = f"{architecture.callable}({', '.join(f'{k}={v!r}' for k, v in architecture.kwargs.items())})"
    try:
        network = factory(**architecture.kwargs)
    except Exception as error:  # the package's own code may raise anything
        raise PackageError(
            f"{weights}: the architecture {name} cannot be built: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, torch.nn.Module):
        raise PackageError(f"{weights}: the architecture {name} is {type(network).__name__}, no torch module")
    return network


def _import_from_library(architecture: Any) -> Callable[..., Any]:
    name = str(architecture.callable)
    path = current_name(f"{architecture.import_from}.{name}")
    module, *names = path.rsplit(".", 1 + name.count("."))
    try:
        found = functools.reduce(getattr, names, importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise PackageError(_missing_library(architecture, error)) from error
    return found  # type: ignore[return-value]


def _import_from_file(architecture: Any, root: Path) -> Callable[..., Any]:
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
        exec(compile(content, str(path), "exec"), module.__dict__)  # noqa: S102 with the user's consent
        return functools.reduce(getattr, str(architecture.callable).split("."), module)  # type: ignore[return-value]
    except Exception as error:  # the package's own code may raise anything
        raise PackageError(
            f"{path}: the architecture {architecture.callable!r} cannot be imported from it: "
            f"{type(error).__name__}: {error}"
        ) from error


def load_network(path: Path, architecture: Any, root: Path, *, allow_code: bool) -> "torch.nn.Module":
    """Return the network of a state dict on the CPU, with its weights, in evaluation mode.

    Args:
        path: the state dict.
        architecture: the spec's description of the network's source.
        root: folder of the package.
        allow_code: consent to run the Python code that builds the network.

    Raises:
        PackageError: no consent, a file that is not a plain state dict, or one that does not fit the network.
    """
    weights = Weights("pytorch_state_dict", path, root, architecture, allow_code=allow_code)
    _check_library(architecture)
    if not allow_code:
        raise PackageError(_missing_consent(weights))
    check_state_dict(weights)
    network = _build_network(weights)
    _load_weights(network, path)
    return network.eval()


def read_state_dict(weights: Path) -> dict[str, Any]:
    """Return the arrays of a state dict by their names; runs nothing that the file holds.

    Raises:
        PackageError: the file holds anything else, or is damaged.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of how old the file's pickle is
            state = torch.load(weights, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged file makes of the unpickler can be anything
        raise PackageError(
            f"{weights}: the pytorch_state_dict weights cannot be loaded: {explain_unpickling(error)}; they must be a plain "
            "state dict (torch.save(network.state_dict(), ...))"
        ) from error
    if not isinstance(state, dict):
        raise PackageError(f"{weights}: the file holds {type(state).__name__}, no state dict")
    return state


def explain_unpickling(error: Exception) -> str:
    """Return torch's message about a file, without its advice how to load it anyway."""
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
            f"{one_line(error)}; the package's architecture and weights disagree"
        ) from error
