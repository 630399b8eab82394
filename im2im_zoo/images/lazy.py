"""Arrays that read only the region asked for, given to xarray through its extension point for backends.

A source knows how to read a region of one file; it knows no axes and no metadata. Sources hold no open file
when they are pickled, so an image can be sent to other processes.
"""

import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core import indexing

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.address import Place

Key = tuple[int | slice, ...]


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
        """Return the region at a key of integers and slices with positive steps, in memory."""


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


@dataclass(frozen=True, slots=True)
class ExpandedSource:
    """Another source with axes of length 1 inserted. (xarray's own `expand_dims` would read all voxels.)

    Attributes:
        source: what is read.
        inserted: positions of the new axes in the new shape.
    """

    source: Source
    inserted: tuple[int, ...]

    @property
    def path(self) -> Place:
        return self.source.path

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = iter(self.source.shape)
        ndim = len(self.source.shape) + len(self.inserted)
        return tuple(1 if axis in self.inserted else next(sizes) for axis in range(ndim))

    @property
    def chunks(self) -> tuple[int, ...] | None:
        known = getattr(self.source, "chunks", None)
        sizes = iter(known or ())
        return known and tuple(1 if axis in self.inserted else next(sizes) for axis in range(len(self.shape)))

    def read(self, key: Key) -> NDArray[Any]:
        found = self.source.read(tuple(k for axis, k in enumerate(key) if axis not in self.inserted))
        kept = [(axis in self.inserted, k) for axis, k in enumerate(key) if isinstance(k, slice)]
        widened = found[tuple(None if new else slice(None) for new, _ in kept)]
        return widened[tuple(k if new else slice(None) for new, k in kept)]


class OpenedSource:
    """Voxels of a file that has to be opened; it is opened at the first read, once a process.

    Args:
        path: the file, for messages.
        shape, dtype: of the voxels.
        opener: importable function of `arguments` that gives an array which is indexed by a key, and a
            function that closes it.
        chunks: voxels that are decoded at once.
    """

    def __init__(
        self,
        path: Place,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        opener: "Callable[..., tuple[Any, Callable[[], None]]]",
        *arguments: Any,
        chunks: tuple[int, ...] | None = None,
    ) -> None:
        self.path = path
        self.shape = shape
        self.chunks = chunks
        self.dtype = dtype.newbyteorder("=")
        self._opener = opener
        self._opened: Any = None
        self._process: int = 0
        self._arguments = arguments
        self._reset()

    def read(self, key: Key) -> NDArray[Any]:
        found = self._array()[key]
        return np.asarray(found).astype(self.dtype, copy=False)

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

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_opened", "_process")}

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
        plain: Key = tuple(k if isinstance(k, slice) else int(k) for k in key)
        try:
            return self.source.read(plain)
        except (ImageError, MemoryError):
            raise
        except Exception as error:
            raise ImageError(
                f"{self.source.path}: cannot read the region {_key_text(plain)}: {type(error).__name__}: {error}; "
                "the file is damaged, cut short, or was changed or removed while it was open: copy or export it again"
            ) from error


def lazy_image(source: Source, dims: tuple[str, ...]) -> xr.DataArray:
    """Return the voxels as a DataArray that reads nothing until a region is needed; its `encoding` has the chunks."""
    image = xr.DataArray(xr.Variable(dims, indexing.LazilyIndexedArray(LazyArray(source))))
    chunks = getattr(source, "chunks", None)
    if chunks is not None:
        image.encoding["preferred_chunks"] = dict(zip(dims, chunks, strict=True))
    return image


def _key_text(key: Key) -> str:
    return "[" + ", ".join(str(k) if isinstance(k, int) else f"{k.start}:{k.stop}" for k in key) + "]"
