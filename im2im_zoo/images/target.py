"""What is to be written (`NewImage`) and how a format takes it (`Target`). Writes nothing itself."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that is to be written; axes in the caller's order.

    Attributes:
        axes, shape, dtype: one each a dimension; dtype of the caller's blocks.
        name: for the metadata.
        pixel_size_um: space axis -> micrometres; only those known.
        channel_names: one a channel, if known.
        time_step_s: seconds between time points, if known.
        attributes: provenance; JSON values.
        labels: whether the integers are labels, which must never be averaged.
        translation_um: space axis -> micrometres of the first voxel's centre; only those known, and not zero.
        within: whether it is a label image within the image that it belongs to.
    """

    axes: tuple[AxisName, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    name: str
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    channel_names: tuple[str, ...] | None = None
    time_step_s: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    labels: bool = False
    translation_um: Mapping[str, float] = field(default_factory=dict)
    within: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, uncompressed."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def size(self, axis: str) -> int:
        """Voxels along an axis, 1 if the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def in_order(self, order: tuple[AxisName, ...]) -> tuple[AxisName, ...]:
        """The image's axes, in the order of a format."""
        return tuple(axis for axis in order if axis in self.axes)


class RegionWriter(Protocol):
    """Voxels that are open for writing."""

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block, both in the format's order; the key has slices with start and stop."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class RegionPlace(Protocol):
    """Where the voxels of a file in the making are: plain data that can be sent to other processes."""

    def open(self) -> RegionWriter:
        """Open them for writing."""
        ...


class Target(RegionWriter, Protocol):
    """A file in the making: `create`, then `open`, any number of regions, `finish`; `close` at any time.

    Attributes:
        axes: in the format's order, in which keys and blocks are given.
        chunks: voxels that are stored together, in that order; ones where regions of any shape are alike.
    """

    axes: tuple[AxisName, ...]
    chunks: tuple[int, ...]

    def create(self, partial: Path) -> None:
        """Make the file, its voxels zero."""
        ...

    def open(self, partial: Path) -> None:
        """Open a file that `create` has made, now or in an earlier run.

        Raises:
            ImageError: it is damaged, or of another image.
        """
        ...

    def place(self) -> RegionPlace:
        """Where other processes may write to, once it is open."""
        ...

    def mark(self, key: tuple[slice, ...]) -> None:
        """Count a region as written. Not for several threads at once."""
        ...

    def finish(self) -> None:
        """Complete the file after the last block."""
        ...


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with a file that is not the one wanted.

    Raises:
        ImageError: naming what differs.
    """
    differing = [f"{k} {found.get(k)}, not {v}" for k, v in wanted.items() if found.get(k) != v]
    if differing:
        raise ImageError(
            f"{path}: cannot be gone on with: it has {'; '.join(differing)}; remove it to start over, or write "
            "what it was begun with"
        )


def blocks(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, limit: int = 32 * 2**20
) -> Iterator[tuple[slice, ...]]:
    """Regions that cover an image once, each of whole chunks and of at most `limit` bytes (or one chunk).

    Args:
        shape, chunks: of the image, in voxels.
        itemsize: bytes a voxel.
        limit: bytes a block.
    """
    sides = [min(c, n) for c, n in zip(chunks, shape, strict=True)]
    for axis in reversed(range(len(shape))):
        others = int(np.prod(sides, dtype=object)) // sides[axis] * itemsize
        fitting = max(1, limit // (others * sides[axis]))
        sides[axis] = min(shape[axis], sides[axis] * fitting)
    starts = [range(0, n, side) for n, side in zip(shape, sides, strict=True)]
    for corner in product(*starts):
        yield tuple(slice(at, min(at + side, n)) for at, side, n in zip(corner, sides, shape, strict=True))
