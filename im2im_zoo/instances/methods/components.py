"""Instances as connected components of a thresholded map. It needs numpy only: a package ships this file as it is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def group(
    maps: NDArray[np.float32], *, channel: int = 0, threshold: float = 0.5, min_size: int = 1
) -> NDArray[np.int32]:
    """Label the connected components of where a map exceeds a threshold; voxels connect through their faces.

    Args:
        maps: (channel, (z,) y, x).
        channel: of the map.
        threshold: of its values.
        min_size: voxels; smaller components are background.

    Returns:
        Labels ((z,) y, x): 0 background, 1..N in raster order of the components' first voxels.
    """
    mask = maps[channel] > threshold
    starts, lengths = _runs(mask)
    parents = _joined(len(starts), _touching(mask, starts))
    sizes = np.bincount(parents, weights=lengths, minlength=len(starts))
    kept = (parents == np.arange(len(starts))) & (sizes >= min_size)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = np.repeat(numbers[parents], lengths)
    return labels


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the runs of foreground along x begin in the flat mask, in raster order, and how long they are."""
    edges = np.zeros((*mask.shape[:-1], mask.shape[-1] + 1), bool)
    edges[..., :-1] = mask
    edges[..., 1:] ^= mask
    # Of each row, a beginning and an end in turn; a row of the edges is one longer than one of the mask.
    places = np.flatnonzero(edges)
    places -= places // edges.shape[-1]
    return places[::2], places[1::2] - places[::2]


def _touching(mask: NDArray[np.bool_], starts: NDArray[np.intp]) -> NDArray[Any]:
    """(2, pairs): runs that touch along y or z; the number of a run is its place in `starts`."""
    pairs = [np.zeros((2, 0), np.intp)]
    for axis in range(mask.ndim - 1):
        both = np.zeros(mask.shape, bool)
        before, after = [slice(None)] * mask.ndim, [slice(None)] * mask.ndim
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        both[tuple(before)] = mask[tuple(before)] & mask[tuple(after)]
        # One place of each overlap suffices.
        first, _ = _runs(both)
        step = int(np.prod(mask.shape[axis + 1 :], dtype=np.intp))
        pairs.append(np.stack([np.searchsorted(starts, first + s, side="right") - 1 for s in (0, step)]))
    return np.concatenate(pairs, axis=1)


def _joined(count: int, pairs: NDArray[Any]) -> NDArray[np.intp]:
    """The first run of the component of each of `count` runs."""
    parents = np.arange(count)
    while True:
        first, second = parents[pairs]
        apart = first != second
        if not apart.any():
            return parents
        pairs = pairs[:, apart]
        low, high = np.sort([first[apart], second[apart]], axis=0)
        np.minimum.at(parents, high, low)
        while not np.array_equal(above := parents[parents], parents):
            parents = above
