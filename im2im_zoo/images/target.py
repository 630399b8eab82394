"""Description of an image to be written (`NewImage`, `Storage`) and the protocols of its writers (`Target`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, Protocol

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
        """Return the voxels along an axis, 1 if the image does not have it."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def in_order(self, order: tuple[AxisName, ...]) -> tuple[AxisName, ...]:
        """Return the image's axes, in the order of a format."""
        return tuple(axis for axis in order if axis in self.axes)


@dataclass(frozen=True, slots=True)
class Storage:
    """Storage of voxels; None is the format's default.

    Attributes:
        chunks: voxels that are stored together, in the order of the image's axes; they may exceed the image.
        shards: voxels in one file, in the same order.
        ome_zarr_version: "0.4" or "0.5".
        reduced: blocks of the pyramid that an earlier run has written: level, number.
        on_reduced: called with level and number after each block of the pyramid that is written.
    """

    chunks: tuple[int, ...] | None = None
    shards: tuple[int, ...] | None = None
    ome_zarr_version: str = "0.5"
    reduced: Iterable[tuple[int, int]] = ()
    on_reduced: Callable[[int, int], None] | None = None


class Stored(NamedTuple):
    """Number and bytes of the files that hold some voxels; 0 of a format that keeps all voxels in one file."""

    files: int = 0
    bytes: int = 0

    def plus(self, other: "Stored") -> "Stored":
        """Return the sums."""
        return Stored(self.files + other.files, self.bytes + other.bytes)


class RegionWriter(Protocol):
    """Voxels that are open for writing."""

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block, both in the format's order; the key has slices with start and stop."""

    def close(self) -> None:
        """Close the file."""


class RegionPlace(Protocol):
    """Location of the voxels of an unfinished file: plain data that can be sent to other processes."""

    def open(self) -> RegionWriter:
        """Open them for writing."""


class Target(RegionWriter, Protocol):
    """An unfinished file: `create`, then `open`, any number of regions, `finish`; `close` at any time.

    Attributes:
        axes: in the format's order, in which keys and blocks are given.
        chunks: voxels that are stored together, in that order; ones where regions of any shape are alike.
    """

    axes: tuple[AxisName, ...]
    chunks: tuple[int, ...]

    def create(self, partial: Path) -> None:
        """Create the file, its voxels zero."""

    def open(self, partial: Path) -> None:
        """Open a file that `create` has created, now or in an earlier run.

        Raises:
            ImageError: the file is damaged, or of another image.
        """

    def place(self) -> RegionPlace:
        """Return the location for writers in other processes, once the file is open."""

    def mark(self, key: tuple[slice, ...]) -> None:
        """Count a region as written. Not for several threads at once."""

    def stored(self, key: tuple[slice, ...]) -> Stored:
        """Return the files of a region that was written."""
        ...

    def stored_reduced(self, level: int, number: int) -> Stored:
        """Return the files of a block of the pyramid that was passed to `Storage.on_reduced`."""
        ...

    def check_in_place(self) -> None:
        """Check that the file is still the one that was opened.

        Raises:
            ImageError: it was removed, replaced or cut short.
        """
        ...

    def finish(self) -> None:
        """Complete the file after the last block."""


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to resume writing into a file of another image.

    Raises:
        ImageError: some values differ; the message lists them.
    """
    differing = [f"{k} {found.get(k)}, not {v}" for k, v in wanted.items() if found.get(k) != v]
    if differing:
        raise ImageError(
            f"{path}: cannot be resumed because it has {'; '.join(differing)}; remove it to start over, or use the "
            "original settings"
        )


def blocks(
    shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int, limit: int = 32 * 2**20
) -> Iterator[tuple[slice, ...]]:
    """Yield regions that cover an image once, each of whole chunks and of at most `limit` bytes (or one chunk).

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
