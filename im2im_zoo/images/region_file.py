"""Writing regions, in any order, of voxels that lie uncompressed and in one piece in a file. Knows no format.

Plain writes and not a memory map: on a full disk a map kills the process where a write raises an error.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RegionFile:
    """The voxels of a file that already has its full size.

    Args:
        path: the file.
        offset: bytes before the first voxel.
        shape, dtype: of the voxels, in C order.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._file = path.open("r+b", buffering=0)
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

    def _write_at(self, position: int, run: NDArray[Any]) -> None:
        left = memoryview(run.tobytes())
        self._file.seek(position)
        while left:
            # Near a limit the system takes a part, and says why it takes no more at the next call.
            left = left[self._file.write(left) or 0 :]

    def close(self) -> None:
        self._file.close()
