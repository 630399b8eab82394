"""Chunks of an image's files that are missing, found without reading a voxel."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core import indexing

from im2im_zoo.images.colours import GreySource
from im2im_zoo.images.joined import JoinedSource
from im2im_zoo.images.lazy import ArrangedSource, ChunkedSource, LazyArray, MissingChunks, Source


def missing_chunks(image: xr.DataArray) -> Iterator[tuple[str, MissingChunks]]:
    """Yield the path and the missing chunks of each file of a lazy image in which some are missing.

    Only chunks that the image reads are counted: those of its channels, and of the level that was opened.

    Args:
        image: from `open_image` or `join_channels`, or a selection of one; of other images nothing is known.
    """
    data: Any = image.variable._data
    key = getattr(data, "key", None) if isinstance(data, indexing.LazilyIndexedArray) else None
    while isinstance(data, indexing.ExplicitlyIndexed) and not isinstance(data, LazyArray):
        data = getattr(data, "array", None)
    if isinstance(data, LazyArray):
        used = [np.ones(n, np.bool_) for n in data.shape]
        if key is not None:
            used = [_mask(n, k) for n, k in zip(data.shape, key.tuple, strict=True)]
        yield from _of_source(data.source, used)


def describe_missing_chunks(image: xr.DataArray) -> list[str]:
    """Return a sentence without its end for each file of an image in which chunks are missing; see `missing_chunks`."""
    return [
        f"{path}: {missing} of {total} chunks ({_percent(missing / total)}) are missing and are read as {fill}"
        for path, (missing, total, fill) in missing_chunks(image)
    ]


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.2g} %"


def _of_source(source: Source, used: Sequence[NDArray[np.bool_]]) -> Iterator[tuple[str, MissingChunks]]:
    if isinstance(source, ArrangedSource):
        axes = zip(source.axes, used, strict=True)
        region = {a: np.flatnonzero(mask) for a, mask in axes if a in source.image.dims}
        yield from missing_chunks(source.image.isel({**source.position, **region}))
    elif isinstance(source, GreySource):
        axes = zip((str(a) for a in source.image.dims if a != "channel"), used, strict=True)
        yield from missing_chunks(source.image.isel({a: np.flatnonzero(mask) for a, mask in axes}))
    elif isinstance(source, JoinedSource):
        first = 0
        for image in source.images:
            count = image.sizes.get("channel", 1)
            if used[0][first : first + count].any():
                yield from missing_chunks(image)
            first += count
    elif isinstance(source, ChunkedSource):
        found = source.missing_chunks(used)
        if found.missing:
            yield str(source.path), found


def _mask(size: int, key: Any) -> NDArray[np.bool_]:
    mask = np.zeros(size, np.bool_)
    mask[key] = True
    return mask
