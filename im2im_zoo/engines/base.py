"""The base of all engines: what one states about itself, what it opens, and how it is called.

Arrays in, arrays out: an engine knows neither axes nor images. `docs/adding-an-engine.md` shows a complete one.
"""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError

PRECISIONS = ("float32", "bfloat16", "float16")


@runtime_checkable
class Engine(Protocol):
    """A network that is loaded and ready to run, from any one thread at a time.

    Attributes:
        weights_format: of the weights.
        backend: the library that runs them.
        precision: of the numbers within the network; inputs and outputs keep their own dtype.
        device: where it runs.
    """

    weights_format: str
    backend: str
    precision: str
    device: str

    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """Run the network once.

        Args:
            inputs: one array for each input tensor of the package, in its axis order; None for an optional one that is not
                given.

        Returns:
            One contiguous array for each output tensor, in its axis order.

        Raises:
            PackageError: the network refuses the arrays; the message names the weights and the shapes.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of a package in one format.

    Attributes:
        format: the spec's name of the format.
        path: the file.
        root: folder of the package; the files that the weights name lie in it.
        architecture: the spec's description of the network's source, for `pytorch_state_dict`.
        description: the spec's whole description of the model, for Keras and TensorFlow.
        allow_code: consent to run Python code of the package, or of a library that it names.
    """

    format: str
    path: Path
    root: Path
    architecture: Any = None
    description: Any = None
    allow_code: bool = False

    def __str__(self) -> str:
        """Return the name of the weights in messages."""
        return f"{self.path} ({self.format})"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of an engine.

    Attributes:
        device: `cpu`, `cuda`, `cuda:<number>` or `mps`.
        threads: threads within one call (None: as the library chooses).
        precision: of the numbers within the network, one of `PRECISIONS`.
    """

    device: str = "cpu"
    threads: int | None = None
    precision: str = "float32"


SafetyCheck: TypeAlias = Callable[[Weights], None]
"""Raises a PackageError for a file that would do more than compute. Loads and runs nothing of it."""


class BaseEngine(ABC):
    """An engine that the registry finds: a class in a module of this folder.

    A module of an engine imports its library where it uses it, never at its top.

    Class attributes:
        backend: the library, as `--backend` names it.
        formats: the weights formats that it runs, each with the safety check that a file has to pass before it is opened.
        devices: the kinds of devices that it runs on (`cpu`, `cuda`, `mps`).
        precisions: the numbers that it can compute in, of `PRECISIONS`.
        rank: its place where nothing is measured; the lowest is preferred.
        runs_code: whether opening the weights runs Python code that the package names.
        distributions: what is installed for it, by the names of their distributions, any of which will do.
        extra: the extra of im2im_zoo that installs it.
    """

    backend: str
    formats: ClassVar[Mapping[str, SafetyCheck]]
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    precisions: ClassVar[tuple[str, ...]] = ("float32",)
    rank: ClassVar[int] = 100
    runs_code: ClassVar[bool] = False
    distributions: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    def __init__(self, weights: Weights, options: RunOptions) -> None:
        """Open the weights, which passed the safety check of their format.

        Raises:
            PackageError: a file that cannot be loaded, a device that is not there, or code without consent.
        """
        self.weights_format, self.weights = weights.format, weights
        self.device, self.precision = options.device, options.precision

    @property
    def input_shapes(self) -> tuple[tuple[int | None, ...], ...] | None:
        """Shape of each input that the weights take, None along axes of any length; None if they do not state any.

        An ONNX file may be exported for one size only, whatever the RDF states. Tiles then have this size.
        """
        return None

    @abstractmethod
    def __call__(self, inputs: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        """See `Engine`."""

    @classmethod
    def is_available(cls, weights_format: str, device: str = "cpu") -> bool:
        """Return whether it is installed here and runs a format on a device."""
        kind = device.partition(":")[0]
        return weights_format in cls.formats and cls.is_installed(weights_format) and kind in cls.devices

    @classmethod
    def is_installed(cls, weights_format: str) -> bool:
        """Return whether what it needs to run a format is installed, on whatever device. Imports nothing."""
        return weights_format in cls.formats and has_module(cls.backend)

    @classmethod
    def version(cls) -> str:
        """Return the installed distribution and its version; empty if there is none."""
        for name in cls.distributions:
            try:
                return f"{name} {metadata.version(name)}"
            except metadata.PackageNotFoundError:
                continue
        return ""


def has_module(name: str) -> bool:
    """Return whether a module can be imported, without importing it."""
    return importlib.util.find_spec(name) is not None


def one_line(error: object, limit: int = 600) -> str:
    """Return the start of a library's message, in one line."""
    return " ".join(str(error).split())[:limit]


def call_error(weights: Weights, inputs: Sequence[NDArray[Any] | None], error: Exception) -> PackageError:
    """Return the error for a network that refuses its inputs, or runs out of memory on them."""
    shapes = ", ".join("nothing" if a is None else f"{a.shape} {a.dtype}" for a in inputs)
    # The cause is at the start or at the end of a long trace, depending on the library.
    text = " ".join(str(error).split())
    short = text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}"
    return PackageError(
        f"{weights}: the network failed on input of shape {shapes}: {short}; the sizes that the "
        "RDF declares may not be those that the network takes, or the memory did not suffice (use a smaller tile)"
    )
