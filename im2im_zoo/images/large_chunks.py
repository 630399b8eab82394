"""Reading chunks that are large in memory one at a time: libraries decode several at once, and each again for every region."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Bytes of a decoded chunk from which on it is read alone, and kept until another one is needed.
LARGE_CHUNK_BYTES = 32 * 2**20
# Chunks of a smaller size that are decoded at the same time (zarr's `async.concurrency`).
_CHUNKS_AT_ONCE = 10
# A chunk is decoded from a compressed one, which is at most about as large.
COPIES = 2
# Python's own gzip holds its result in pieces before it joins them, and zarr copies that.
GZIP_COPIES = 4

Index = tuple[int, ...]
"""Position of a chunk in the grid of chunks."""
_Key = tuple[slice, ...]


def decoding_bytes(shape: Sequence[int], chunks: Sequence[int], itemsize: int, copies: int = COPIES) -> int:
    """Return the most bytes that decoding takes at once, beside the region that is read.

    Args:
        shape: voxels of the image along each axis.
        chunks: voxels of a chunk along each axis.
        itemsize: bytes of a voxel.
        copies: bytes that decoding a large chunk takes, in times of its own.

    Example:
        >>> decoding_bytes((4096, 4096), (256, 256), 2) == 10 * 256 * 256 * 2
        True
        >>> decoding_bytes((20000, 20000), (20000, 20000), 2) == 2 * 20000 * 20000 * 2
        True
    """
    one = math.prod(chunks) * itemsize
    if one >= LARGE_CHUNK_BYTES:
        return copies * one
    return one * min(_CHUNKS_AT_ONCE, math.prod(-(-n // side) for n, side in zip(shape, chunks, strict=True)))


class KeptChunk:
    """The last chunk that was read of an array of large chunks.

    Args:
        shape, dtype: of the array.
        chunks: voxels of a chunk along each axis.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], chunks: tuple[int, ...]) -> None:
        self._shape = shape
        self._dtype = dtype
        self._chunks = chunks
        self._index: Index | None = None
        self._values: NDArray[Any] | None = None

    def read(self, key: _Key, decode: Callable[[Index, _Key], Any]) -> NDArray[Any]:
        """Return a region, of which one chunk after the other is decoded.

        Args:
            key: a slice along each axis, its bounds within the array and its step positive.
            decode: function of a chunk's position in the grid of chunks, and of its region, that returns its voxels; those beyond
                the array's end are ignored.
        """
        ranges = [range(*k.indices(n)) for k, n in zip(key, self._shape, strict=True)]
        found = np.empty([len(r) for r in ranges], self._dtype)
        for parts in product(*(_parts(r, side) for r, side in zip(ranges, self._chunks, strict=True))):
            index = tuple(number for number, _, _ in parts)
            found[tuple(to for _, to, _ in parts)] = self._chunk(index, decode)[
                tuple(at for _, _, at in parts)
            ]
        return found

    def _chunk(self, index: Index, decode: Callable[[Index, _Key], Any]) -> NDArray[Any]:
        if self._values is None or self._index != index:
            self._index = self._values = None  # freed before the next one is decoded
            whole = tuple(
                slice(i * side, min((i + 1) * side, n))
                for i, side, n in zip(index, self._chunks, self._shape, strict=True)
            )
            self._values = np.asarray(decode(index, whole)).astype(self._dtype, copy=False)
            self._index = index
        return self._values


def _parts(positions: range, side: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield each chunk that has some of the positions: its number, where they are among all, and where in the chunk."""
    done = 0
    while done < len(positions):
        number = positions[done] // side
        count = len(range(positions[done], min((number + 1) * side, positions.stop), positions.step))
        start = positions[done] - number * side
        yield (
            number,
            slice(done, done + count),
            slice(start, start + (count - 1) * positions.step + 1, positions.step),
        )
        done += count
