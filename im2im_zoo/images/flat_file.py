"""Files whose voxels lie uncompressed and in one piece: a header first, then regions in any order. Knows no format.

Regions are written by plain writes and not a memory map: on a full disk a map kills the process where a write raises an
error.
"""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.target import Stored


class RegionFile:
    """Writer of regions of a file that already has its full size.

    Args:
        path: the file.
        offset: bytes before the first voxel.
        shape, dtype: of the voxels, in C order.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file = path.open("r+b", buffering=0)
        self._opened = os.fstat(self._file.fileno())
        self._offset = offset
        self._shape = shape
        self._dtype = dtype
        self._lock = threading.Lock()

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block at a key of slices with start and stop."""
        data = np.ascontiguousarray(block, dtype=self._dtype)
        if data.size == 0:
            return
        # The trailing axes that are written from end to end, and the one before them, make one run of bytes.
        fused = len(self._shape) - 1
        while fused > 0 and data.shape[fused] == self._shape[fused]:
            fused -= 1
        strides = np.cumprod([1, *self._shape[:0:-1]])[::-1]
        start = sum(int(s) * int(k.start) for s, k in zip(strides, key, strict=True))
        with self._lock:
            for index in np.ndindex(*data.shape[:fused]):
                at = start + sum(int(s) * i for s, i in zip(strides, index, strict=False))
                self._write_at(self._offset + at * self._dtype.itemsize, data[index])

    def is_at(self, path: Path) -> bool:
        """Return whether this file is at a path."""
        return path.is_file() and os.path.samestat(path.stat(), self._opened)

    def _write_at(self, position: int, run: NDArray[Any]) -> None:
        left = memoryview(run.tobytes())
        self._file.seek(position)
        while left:
            # Near a limit the system takes a part, and says why it takes no more at the next call.
            left = left[self._file.write(left) or 0 :]

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, slots=True)
class FlatFile:
    """Location of uncompressed voxels in one piece: the file, the bytes before them, and their shape and type."""

    path: Path
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def open(self) -> RegionFile:
        """Open them for writing.

        Raises:
            ImageError: the file is shorter than its voxels need.
        """
        if self.is_short:
            raise ImageError(f"{self.path}: is cut short; remove it to start over")
        return RegionFile(self.path, self.offset, self.shape, self.dtype)

    @property
    def is_short(self) -> bool:
        """Whether the file is shorter than its voxels need."""
        needed = self.offset + int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize
        return self.path.stat().st_size < needed


class FlatForm(Protocol):
    """Layout of one new file: its header, and where its voxels are.

    Attributes:
        axes: of the voxels, in the order of the file.
    """

    axes: tuple[AxisName, ...]

    def create(self, partial: Path) -> None:
        """Create the file, its voxels zero."""

    def voxels(self, partial: Path) -> "FlatFile":
        """Return where a file that `create` has created has its voxels.

        Raises:
            ImageError: the file is damaged, or of another image.
        """


class FlatTarget:
    """Writer of a file of uncompressed voxels, a `Target`."""

    def __init__(self, form: FlatForm) -> None:
        self._form = form
        self.axes = form.axes
        self.chunks = (1,) * len(form.axes)
        self._opened: tuple[FlatFile, RegionFile] | None = None

    def create(self, partial: Path) -> None:
        self._form.create(partial)

    def open(self, partial: Path) -> None:
        voxels = self._form.voxels(partial)
        self._opened = voxels, voxels.open()

    def place(self) -> "FlatFile":
        return self._open_file()[0]

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        self._open_file()[1].write(key, block)

    def mark(self, key: tuple[slice, ...]) -> None:
        """Do nothing: the file has no pyramid."""

    def stored(self, key: tuple[slice, ...]) -> Stored:
        return Stored()

    def stored_reduced(self, level: int, number: int) -> Stored:
        return Stored()

    def check_in_place(self) -> None:
        place, opened = self._open_file()
        if not opened.is_at(place.path):
            raise ImageError(f"{place.path}: was removed or replaced while it was written")
        if place.is_short:
            raise ImageError(f"{place.path}: was cut short while it was written")

    def finish(self) -> None:
        self.close()

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()

    def _open_file(self) -> "tuple[FlatFile, RegionFile]":
        if self._opened is None:
            raise RuntimeError("the file is not open")
        return self._opened
