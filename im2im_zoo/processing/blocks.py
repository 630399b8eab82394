"""Walk a lazy image in blocks of bounded memory. Geometry and reading only: nothing is computed here.

A walk has two levels, because reading wants large regions (a chunk is decoded whole) and computing wants
small ones (its temporaries are wider than the file's dtype):

    +-------------------------------+
    | region, one read              |   an eighth of `block_bytes` as stored; four are alive when one is read
    | +-------+-------+-------+---- |   ahead, and copied, and the last piece of the one before is still held
    | | piece | piece | piece |     |   a quarter of `block_bytes` at 32 bytes a voxel
    | +-------+-------+-------+---- |
    +-------------------------------+

The last quarter is for what the walker counts.
"""

import math
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice, product

import numpy as np
import xarray as xr
from numpy.typing import NDArray

# float64 values, their 64-bit keys, bin numbers, and one temporary.
BYTES_PER_VOXEL = 32

# A region that is read at once, and the pieces of it that are worked on, counted from its start.
Cut = tuple[dict[str, slice], list[dict[str, slice]]]


def tensor_name(image: xr.DataArray) -> str:
    """Return how errors name an image: its name, else where it was read from."""
    return repr(str(image.name or image.attrs.get("source") or "(unnamed)"))


def positions(image: xr.DataArray, axis: str) -> NDArray[np.int64]:
    """Return the position of each index of `axis` in the whole image.

    It is the integer coordinate (a tile carries one on axes along which a statistic varies); without one,
    or where it repeats itself, `image` is the whole.
    """
    labels = integer_labels(image, axis)
    if labels is not None and len(np.unique(labels)) == len(labels):
        return labels
    return np.arange(image.sizes[axis], dtype=np.int64)


def integer_labels(image: xr.DataArray, axis: str) -> NDArray[np.int64] | None:
    """Return the integer coordinate of `axis`, if it has one; names and lengths are no positions."""
    if axis not in image.coords or image.coords[axis].dtype.kind not in "iu":
        return None
    labels: NDArray[np.int64] = image.coords[axis].to_numpy().astype(np.int64)
    return labels


def block_shape(
    sizes: Mapping[str, int],
    voxels: int,
    *,
    grain: Mapping[str, int] | None = None,
    units: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return the largest block of at most `voxels` whose edges lie on multiples of `grain`.

    Args:
        sizes: voxels of each axis, slowest axis first.
        voxels: the limit. One grain is the least a block can be, even when it is larger than this.
        grain: block edges are multiples of it (default 1).
        units: sizes at which reading is cheap (the file's chunks); kept to where the limit allows.
    """
    grain, units = grain or {}, units or {}
    shape = {}
    for axis, size in sizes.items():
        least = min(grain.get(axis, 1), size)
        shape[axis] = min(size, -(-max(units.get(axis, 1), 1) // least) * least)
    for axis in sizes:
        least = min(grain.get(axis, 1), sizes[axis])
        while math.prod(shape.values()) > voxels and shape[axis] > least:
            shape[axis] = max(least, shape[axis] // 2 // least * least)
    for axis in reversed(list(sizes)):
        room = voxels // math.prod(shape.values())
        if room > 1:
            shape[axis] = min(sizes[axis], shape[axis] * room)
    return shape


def regions(sizes: Mapping[str, int], shape: Mapping[str, int]) -> Iterator[dict[str, slice]]:
    """Yield disjoint regions of at most `shape` that cover `sizes`, in C order. No axes give one empty region."""
    cuts = [
        [slice(start, min(start + shape[axis], size)) for start in range(0, size, shape[axis])]
        for axis, size in sizes.items()
    ]
    for cut in product(*cuts):
        yield dict(zip(sizes, cut, strict=True))


def read(image: xr.DataArray, region: Mapping[str, slice], *, will_be_cut: bool = False) -> xr.DataArray:
    """Read one region, C-contiguous.

    Args:
        image: lazy.
        region: by axis; an axis that is left out is whole.
        will_be_cut: whether the caller cuts the region further.

    Returns:
        With integer positions as the coordinates of every axis that is cut, or whose positions are not those from 0 on.
    """
    axes = names(image)
    slices = {a: region.get(a, slice(None)) for a in axes}
    located = [
        a
        for a, size in zip(axes, image.shape, strict=True)
        if will_be_cut or slices[a].indices(size) != (0, size, 1) or a in image.coords
    ]
    values = np.ascontiguousarray(image.isel(slices).to_numpy())
    return xr.DataArray(
        values,
        dims=image.dims,
        coords={a: positions(image, a)[slices[a]] for a in located},
        name=image.name,
        attrs=image.attrs,
    )


def walk(
    image: xr.DataArray,
    *,
    block_bytes: int,
    grain: Mapping[str, int] | None = None,
    within: Mapping[str, slice] | None = None,
    skip: int = 0,
) -> Iterator[tuple[dict[str, int], xr.DataArray]]:
    """Read every voxel of a lazy image once, in pieces.

    Args:
        image: lazy; only regions of it are read.
        block_bytes: bound on the memory of this walk, excluding what the file's reader needs to decode.
        grain: piece edges are multiples of it, counted from the start of `within`.
        within: the part of the image to walk (default all).
        skip: number of pieces at the start that are not read.

    Yields:
        The start of the piece (voxels from the start of `within`), and the piece with coordinates as `read` gives them.
    """
    offset = {a: (within or {}).get(a, slice(0, image.sizes[a])) for a in names(image)}
    sizes = {a: part.stop - part.start for a, part in offset.items()}
    stored = max(1, block_bytes // 8 // image.dtype.itemsize)
    region_shape = block_shape(sizes, stored, grain=grain, units=_chunks(image))
    cuts = _cuts(sizes, region_shape, working_voxels(block_bytes), grain, skip)
    for region, parts, block in _read_ahead(image, cuts, offset):
        for part in parts:
            yield {a: region[a].start + p.start for a, p in part.items()}, block.isel(part)


def _cuts(
    sizes: Mapping[str, int],
    shape: Mapping[str, int],
    voxels: int,
    grain: Mapping[str, int] | None,
    skip: int,
) -> Iterator[Cut]:
    """Yield regions of a shape and their pieces of at most `voxels`, without the first `skip` pieces."""
    passed = 0
    for region in regions(sizes, shape):
        lengths = {a: r.stop - r.start for a, r in region.items()}
        parts = list(regions(lengths, block_shape(lengths, voxels, grain=grain)))
        left = parts[max(0, skip - passed) :]
        passed += len(parts)
        if left:
            yield region, left


def _read_ahead(
    image: xr.DataArray, cuts: Iterable[Cut], offset: Mapping[str, slice]
) -> Iterator[tuple[dict[str, slice], list[dict[str, slice]], xr.DataArray]]:
    """Yield cuts, counted from an offset, with their regions read; the next is read while the caller works on one."""

    def load(cut: Cut) -> tuple[dict[str, slice], list[dict[str, slice]], xr.DataArray]:
        region, parts = cut
        absolute = {a: slice(offset[a].start + r.start, offset[a].start + r.stop) for a, r in region.items()}
        return region, parts, read(image, absolute, will_be_cut=len(parts) > 1)

    cuts = iter(cuts)
    first = list(islice(cuts, 2))
    if len(first) < 2:  # a thread takes longer than a small image
        yield from map(load, first)
        return
    with ThreadPoolExecutor(1, "read ahead") as pool:
        pending: deque[Future[tuple[dict[str, slice], list[dict[str, slice]], xr.DataArray]]] = deque()
        for cut in chain(first, cuts):
            pending.append(pool.submit(load, cut))
            if len(pending) > 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def working_voxels(block_bytes: int) -> int:
    """Return how many voxels may be worked on at once."""
    return max(1, block_bytes // 4 // BYTES_PER_VOXEL)


def names(image: xr.DataArray) -> tuple[str, ...]:
    """Return the axes of the image as text, in order."""
    return tuple(str(a) for a in image.dims)


def _chunks(image: xr.DataArray) -> dict[str, int]:
    """Return the voxels of one stored chunk per axis, where xarray knows them (`preferred_chunks` is its convention)."""
    chunks: Mapping[Hashable, tuple[int, ...]] = image.chunksizes
    if chunks:
        return {str(a): max(c) for a, c in chunks.items()}
    preferred = image.encoding.get("preferred_chunks") or {}
    return {str(a): c if isinstance(c, int) else max(c) for a, c in preferred.items()}
