"""Arrays that read only the region asked for, given to xarray through its extension point for backends.

A source knows how to read a region of one file; it knows no axes and no metadata. Sources hold no open file
when they are pickled, so an image can be sent to other processes.
"""

import math
import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.address import Place
from im2im_zoo.images.large_chunks import COPIES, LARGE_CHUNK_BYTES, Index, KeptChunk, decoding_bytes

Key = tuple[slice, ...]

# In the `encoding` of an image: most bytes that decoding takes at once, beside the region that is read.
DECODING_KEY = "im2im_zoo_decoding_bytes"


class Source(Protocol):
    """Voxels of one image in a file.

    One that can only decode whole chunks has their shape as `chunks`, so that readers keep to them.
    """

    @property
    def path(self) -> Place: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, key: Key) -> NDArray[Any]:
        """Return the region of a slice along each axis, its bounds within the image and its step positive, in memory."""


class MissingChunks(NamedTuple):
    """Number of chunks without a file, number of all that are read, and the value that is read where one is missing."""

    missing: int
    total: int
    fill_value: Any


@runtime_checkable
class ChunkedSource(Protocol):
    """A `Source` whose chunks are files of their own, so that some can be missing without an error."""

    @property
    def path(self) -> Place: ...

    def missing_chunks(self, used: Sequence[NDArray[np.bool_]]) -> MissingChunks:
        """Count missing chunks without reading one.

        Args:
            used: whether each position along each axis is read.
        """
        ...


@dataclass(frozen=True, slots=True)
class MappedSource:
    """Uncompressed voxels that lie in one piece in a file: `.npy`, and most TIFFs that are written by programs.

    The file is mapped anew for each read, so that pages which were read do not stay in the process's memory.
    """

    path: Path
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    offset: int
    order: str = "C"

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    def read(self, key: Key) -> NDArray[Any]:
        if 0 in self.shape:
            return np.empty(self.shape, self.dtype)[key]
        mapped = np.memmap(
            self.path, self.stored, "r", self.offset, self.shape, "F" if self.order == "F" else "C"
        )
        return np.array(mapped[key], self.dtype, order="C", copy=True, subok=False)


class OpenedSource:
    """Voxels of a file that has to be opened; it is opened at the first read, once a process.

    Args:
        path: the file, for messages.
        shape, dtype: of the voxels.
        opener: importable function of `arguments` that gives an array which is indexed by a key, and a
            function that closes it.
        chunks: voxels that are decoded at once; large ones are decoded one after the other, and the last one is kept.
        copies: bytes that decoding a large one takes, in times of its own.
    """

    def __init__(
        self,
        path: Place,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        opener: "Callable[..., tuple[Any, Callable[[], None]]]",
        *arguments: Any,
        chunks: tuple[int, ...] | None = None,
        copies: int = COPIES,
    ) -> None:
        self.path = path
        self.shape = shape
        self.chunks = chunks
        self.dtype = dtype.newbyteorder("=")
        self.decoding_bytes = decoding_bytes(shape, chunks, dtype.itemsize, copies) if chunks else 0
        self._opener = opener
        self._opened: Any = None
        self._process: int = 0
        self._arguments = arguments
        self._reset()

    def read(self, key: Key) -> NDArray[Any]:
        array = self._array()
        if self._kept is not None and not isinstance(array, np.ndarray):
            with self._lock:
                return self._kept.read(key, lambda index, region: self._decode(array, index, region))
        return np.asarray(array[key]).astype(self.dtype, copy=False)

    def _decode(self, array: Any, index: Index, region: Key) -> Any:
        """Return one whole chunk, with or without voxels beyond the array's end."""
        return array[region]

    def _array(self) -> Any:
        with self._lock:
            # A forked child shares the parent's file position, so it opens the file for itself.
            if self._opened is None or self._process != os.getpid():
                self._opened, close = self._opener(*self._arguments)
                self._process = os.getpid()
                weakref.finalize(self, close)
            return self._opened

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._opened = None
        self._process = 0
        large = self.chunks is not None and math.prod(self.chunks) * self.dtype.itemsize >= LARGE_CHUNK_BYTES
        self._kept = KeptChunk(self.shape, self.dtype, self.chunks) if self.chunks and large else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_opened", "_process", "_kept")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()


class LazyArray(BackendArray):
    """A source for xarray: every kind of index reads the smallest box around it."""

    __slots__ = ("dtype", "shape", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.shape = source.shape
        self.dtype = source.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        # xarray 2026.9 fails on a slice that goes backwards over nothing.
        parts = tuple(
            slice(0, 0) if isinstance(k, slice) and not range(*k.indices(n)) else k
            for k, n in zip(key.tuple, self.shape, strict=True)
        )
        return indexing.explicit_indexing_adapter(
            type(key)(parts), self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        ranges = [
            range(n)[k if isinstance(k, slice) else slice(k, k + 1 or None)]
            for k, n in zip(key, self.shape, strict=True)
        ]
        region = tuple(slice(r.start, r.stop, r.step) for r in ranges)
        kept = (slice(None) if isinstance(k, slice) else 0 for k in key)
        try:
            return self.source.read(region)[(*kept, ...)]
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise ImageError(
                f"{self.source.path}: cannot read the region {_key_text(region)}: {type(error).__name__}: {error}; "
                "the file is damaged, cut short, or was changed or removed while it was open: copy or export it again"
            ) from error


def lazy_image(source: Source, dims: tuple[str, ...]) -> xr.DataArray:
    """Return the voxels as a DataArray that reads nothing until a region is needed; its `encoding` has the chunks."""
    image = xr.DataArray(xr.Variable(dims, indexing.LazilyIndexedArray(LazyArray(source))))
    chunks = getattr(source, "chunks", None)
    if chunks is not None:
        image.encoding["preferred_chunks"] = dict(zip(dims, chunks, strict=True))
        image.encoding[DECODING_KEY] = getattr(source, "decoding_bytes", 0)
    return image


def arranged_image(
    image: xr.DataArray,
    axes: tuple[str, ...],
    position: Mapping[str, int] | None = None,
    on_read: Callable[[int], None] | None = None,
) -> xr.DataArray:
    """Return an image with exactly some axes, lazily; xarray's own `expand_dims` reads it, and its transposition reads slower.

    Args:
        image: lazy.
        axes: of the result, in order; those that the image does not have get the size one.
        position: on the other axes of the image; axes that it does not have are ignored.
        on_read: called with the number of values of each region that is read.
    """
    fixed = {axis: place for axis, place in (position or {}).items() if axis in image.dims}
    arranged = lazy_image(ArrangedSource(image, axes, fixed, on_read), axes)
    if chunks := image.encoding.get("preferred_chunks"):
        arranged.encoding["preferred_chunks"] = {axis: chunks.get(axis, 1) for axis in axes}
        arranged.encoding[DECODING_KEY] = image.encoding.get(DECODING_KEY, 0)
    return arranged


@dataclass(frozen=True, slots=True, eq=False)
class ArrangedSource:
    """An image at one position of some axes, with the others in another order, a `Source`."""

    image: xr.DataArray
    axes: tuple[str, ...]
    position: Mapping[str, int]
    on_read: Callable[[int], None] | None

    @property
    def path(self) -> Path:
        return Path(str(self.image.attrs.get("source", "image")))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(self.image.sizes.get(a, 1)) for a in self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype

    def read(self, key: Key) -> NDArray[Any]:
        region = {a: k for a, k in zip(self.axes, key, strict=True) if a in self.image.dims}
        found = self.image.isel({**self.position, **region})
        present = [a in self.image.dims for a in self.axes]
        values = found.transpose(*region).to_numpy()[tuple(slice(None) if has else None for has in present)]
        values = values[tuple(slice(None) if has else k for has, k in zip(present, key, strict=True))]
        if self.on_read is not None:
            self.on_read(values.size)
        return values


def _key_text(key: Key) -> str:
    return "[" + ", ".join(f"{k.start}:{k.stop}" for k in key) + "]"
