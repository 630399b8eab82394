"""The base of all operations: what one needs, which axes it must not be cut along, and what it does with a tensor.

An operation is described by the bioimage.io spec's own class. Here it is one frozen class, whose fields are the numbers
that it works with, in a module of this folder that has the operation's id for its name: `softmax` in `softmax.py`.
`docs/adding-an-operation.md` shows a complete one.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import xarray as xr

from im2im_zoo.processing.quantiles import QuantileMethod


@dataclass(frozen=True, slots=True)
class Requirement:
    """Statistics over `axes` (None: all) of the tensor, or of the raw tensor `reference`.

    `fractions`: the quantiles (0 to 1); empty for mean and standard deviation.
    """

    axes: tuple[str, ...] | None
    fractions: tuple[float, ...] = ()
    method: QuantileMethod = "linear"
    reference: str | None = None

    @property
    def of_dataset(self) -> bool:
        """Return whether the statistics cover the dataset: the spec, where `batch` is named or no axes are."""
        return self.axes is None or "batch" in self.axes


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ready to run. `whole_axes`: axes along which it mixes voxels; a tile must not cut them."""

    operation: str
    apply: Callable[[xr.DataArray], xr.DataArray]
    whole_axes: frozenset[str] = frozenset()

    def __call__(self, tensor: xr.DataArray) -> xr.DataArray:
        """Return the processed tensor; the given one is not changed."""
        return self.apply(tensor)


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Inputs of fitting an operation.

    Attributes:
        image: the whole (lazy) tensor; only its axes, sizes and positions are used.
        statistics: those of the operation's `requirements`, flattened in that order: mean and standard deviation, or one
            for each fraction.
        allow_code: consent to run Python that came with the package.
        root: folder of the package, in which its Python files lie.
    """

    image: xr.DataArray
    statistics: Sequence[xr.DataArray] = ()
    allow_code: bool = False
    root: Path | None = None


D = TypeVar("D")


class ProcessingOperation(ABC, Generic[D]):
    """An operation with its numbers bound. `D` is the spec's class of its description.

    Class attributes:
        id: the spec's name of the operation, and that of its module.
    """

    __slots__ = ()

    id: ClassVar[str]

    @classmethod
    def requirements(cls, description: D) -> tuple[Requirement, ...]:
        """Return the statistics of the whole image that it needs (default: none)."""
        return ()

    @classmethod
    def whole_axes(cls, description: D, axes: Sequence[str]) -> frozenset[str]:
        """Return which of the tensor's axes it mixes voxels along, so that a tile must not cut them (default: none)."""
        return frozenset()

    @classmethod
    def check(cls, description: D) -> None:
        """Refuse a description that makes no sense, before any image is read.

        Raises:
            ProcessingError: what is wrong, and what to do.
        """
        return

    @classmethod
    @abstractmethod
    def bind(cls, description: D, fitted: Fitted) -> Self:
        """Return the operation with its numbers.

        Raises:
            ProcessingError: numbers that do not fit the image's axes.
        """

    @abstractmethod
    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return the processed tensor: same axes, coordinates, name and attributes. `x` is the image or a part of it."""


def named_axes(axes: Sequence[Any] | None) -> tuple[str, ...] | None:
    """Return the axes of a description as plain text."""
    return None if axes is None else tuple(str(a) for a in axes)
