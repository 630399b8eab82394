"""Instances as connected components of a thresholded map. It needs numpy only: a package ships this file as it is.

Holes can be filled, and components that hang together by a narrow neck can be split, by a watershed on the distance to the background:
each voxel climbs to a peak of the distance, and peaks with a wide pass between them are one object. An object depends only on the
shape of its component, so that the labels of an image can be found block by block.
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A neck is narrow only if it is also this much nearer to the background than the peak, in voxels: outlines of voxels are rough.
_ROUGHNESS = 0.75
Slices = tuple[slice, ...]


def group(
    maps: NDArray[np.float32],
    *,
    channel: int = 0,
    threshold: float = 0.5,
    min_size: int = 1,
    fill_holes: bool = False,
    split_touching: bool = False,
    neck: float = 0.85,
    spacing: tuple[float, ...] | None = None,
) -> NDArray[np.int32]:
    """Label the connected components of where a map exceeds a threshold; voxels connect through their faces.

    Args:
        maps: (channel, (z,) y, x).
        channel: of the map.
        threshold: of its values.
        min_size: voxels; smaller objects are background.
        fill_holes: make background that is not connected to the border of the image, through faces, part of the objects.
        split_touching: split components at narrow necks.
        neck: a neck is narrow if it is narrower than this fraction of the narrower of the two parts; from 0 (no split) to 1.
        spacing: size of a voxel along (z,) y, x relative to the smallest, for the distances of the split (default: 1 along each).

    Returns:
        Labels ((z,) y, x): 0 background, 1..N in raster order of the objects' first voxels; with `split_touching` of their first
        peaks of the distance to the background.
    """
    mask = maps[channel] > threshold
    if fill_holes:
        mask = filled(mask)
    if not split_touching:
        return _label(mask, min_size)
    heights = distances(mask, spacing)
    peaks = climb(heights, mask)
    ids, places = np.unique(peaks[mask], return_inverse=True)
    one, two, passes = find_passes(heights, peaks, mask)
    objects = merge(heights.ravel()[ids], np.searchsorted(ids, one), np.searchsorted(ids, two), passes, neck)
    sizes = np.bincount(objects[places], minlength=len(ids))
    kept = (objects == np.arange(len(ids))) & (sizes >= min_size)
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    labels = np.zeros(mask.shape, np.int32)
    labels[mask] = numbers[objects[places]]
    return labels


def filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask without holes: background that is not connected to the border of the image through faces."""
    outside = _label(~mask, 1)
    open_too = np.zeros(outside.max(initial=0) + 1, bool)
    for axis in range(mask.ndim):
        for end in (0, -1):
            open_too[np.take(outside, end, axis)] = True
    open_too[0] = False
    return np.asarray(~open_too[outside])


def distances(mask: NDArray[np.bool_], spacing: tuple[float, ...] | None = None) -> NDArray[np.float32]:
    """Return the square of each voxel's Euclidean distance to the next voxel outside the mask; infinite if there is none."""
    sizes = spacing or (1.0,) * mask.ndim
    if len(sizes) != mask.ndim:
        raise ValueError(f"spacing has {len(sizes)} values; give one for each of the {mask.ndim} axes")
    if mask.all():
        return np.full(mask.shape, np.inf, np.float32)
    along = np.where(mask, np.inf, 0).astype(np.float32)
    steps = np.arange(mask.shape[0], dtype=np.float32).reshape(-1, *(1,) * (mask.ndim - 1))
    before = np.maximum.accumulate(np.where(mask, -np.inf, steps), axis=0)
    after = np.minimum.accumulate(np.where(mask, np.inf, steps)[::-1], axis=0)[::-1]
    along = ((np.minimum(steps - before, after - steps) * sizes[0]) ** 2).astype(np.float32)
    for axis in range(1, mask.ndim):
        nearest = along.copy()
        for step in range(1, mask.shape[axis]):
            square = np.float32((step * sizes[axis]) ** 2)
            if square >= nearest.max():
                break
            for here, there in (_shifted(axis, step, mask.ndim), _shifted(axis, -step, mask.ndim)):
                np.minimum(nearest[here], along[there] + square, out=nearest[here])
        along = nearest
    return along


def climb(
    heights: NDArray[np.float32], mask: NDArray[np.bool_], inside: Slices | None = None
) -> NDArray[np.int64]:
    """Return the flat index of the peak that each voxel reaches by steps to its highest neighbour; -1 outside the mask.

    Of equally high neighbours the first in raster order counts as higher. Neighbours share a face, or an edge beside which there is
    foreground.

    Args:
        heights, mask: ((z,) y, x).
        inside: region in which steps begin; voxels outside it are where they are (default: everywhere).
    """
    places = np.arange(mask.size).reshape(mask.shape)
    best, target = np.full(mask.shape, -1, np.float32), places.copy()
    for offset in _offsets(mask.ndim):
        if not any(offset):
            higher = heights > best
            best[higher], target[higher] = heights[higher], places[higher]
            continue
        here, there = _views(offset)
        higher = _connected(mask, offset) & (heights[there] > best[here])
        best[here][higher] = heights[there][higher]
        target[here][higher] = places[there][higher]
    if inside is not None:
        starts = np.zeros(mask.shape, bool)
        starts[inside] = True
        target = np.where(starts, target, places)
    voxels = np.flatnonzero(mask)
    ranks = np.zeros(mask.size, np.int64)
    ranks[voxels] = np.arange(len(voxels))
    peaks = ranks[target.ravel()[voxels]]
    while not np.array_equal(above := peaks[peaks], peaks):
        peaks = above
    found = np.full(mask.shape, -1, np.int64)
    found[mask] = voxels[peaks]
    return found


def find_passes(
    heights: NDArray[np.float32],
    peaks: NDArray[np.int64],
    mask: NDArray[np.bool_],
    inside: Slices | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of touching regions, the lower id first, and the height of the highest pass between them.

    Args:
        heights, mask: ((z,) y, x).
        peaks: id of the region of each voxel.
        inside: region that has the first voxel of each step (default: everywhere).
    """
    parts = [np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)]
    found = [parts]
    starts = np.ones(mask.shape, bool)
    if inside is not None:
        starts[...] = False
        starts[inside] = True
    offsets = _offsets(mask.ndim)
    for offset in offsets[len(offsets) // 2 + 1 :]:
        here, there = _views(offset)
        across = _connected(mask, offset) & starts[here] & (peaks[here] != peaks[there])
        one, two = peaks[here][across], peaks[there][across]
        found.append(
            [np.minimum(one, two), np.maximum(one, two), np.minimum(heights[here], heights[there])[across]]
        )
    return highest(*(np.concatenate(part) for part in zip(*found, strict=True)))


def highest(
    one: NDArray[np.int64], two: NDArray[np.int64], passes: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return only the highest pass of each pair."""
    order = np.lexsort((-passes, two, one))
    one, two, passes = one[order], two[order], passes[order]
    first = np.ones(len(one), bool)
    first[1:] = (one[1:] != one[:-1]) | (two[1:] != two[:-1])
    return one[first], two[first], passes[first]


def merge(
    tops: NDArray[np.float32],
    one: NDArray[np.intp],
    two: NDArray[np.intp],
    passes: NDArray[np.float32],
    neck: float,
) -> NDArray[np.intp]:
    """Return the first region of the object of each region: regions with no narrow neck between them are one object.

    Passes are looked at from the highest on. Each joins two sets of regions, of which the one with the lower peak ends there
    (Grimaud 1992, "New measure of contrast: the dynamics"); the pass is a narrow neck if it is low compared with that peak.

    Args:
        tops: square of the height of each region's peak.
        one, two: (passes,) regions on both sides.
        passes: square of the height of each pass.
        neck: see `group`.
    """
    joined, objects = list(range(len(tops))), list(range(len(tops)))
    peaks = np.sqrt(tops.astype(np.float64)).tolist()
    order = np.lexsort((two, one, -passes))
    lows = np.sqrt(passes[order].astype(np.float64)).tolist()
    for a, b, low in zip(one[order].tolist(), two[order].tolist(), lows, strict=True):
        left, right = _root(joined, a), _root(joined, b)
        if left == right:
            continue
        if peaks[left] < peaks[right]:
            left, right = right, left
        joined[right] = left
        if not (low < neck * peaks[right] and peaks[right] - low >= _ROUGHNESS):
            first, second = sorted((_root(objects, a), _root(objects, b)))
            objects[second] = first
    return np.array([_root(objects, region) for region in range(len(tops))], np.intp)


def _root(parents: list[int], node: int) -> int:
    while parents[node] != node:
        parents[node] = parents[parents[node]]
        node = parents[node]
    return node


def _offsets(ndim: int) -> list[tuple[int, ...]]:
    """Steps to a voxel itself and to those that share a face or an edge with it, in raster order."""
    return [o for o in product((-1, 0, 1), repeat=ndim) if np.count_nonzero(o) <= 2]


def _shifted(axis: int, step: int, ndim: int) -> tuple[Slices, Slices]:
    """Views of all voxels that have one `step` voxels after them along an axis, and of those."""
    here, there = _span(step), _span(-step)
    every = (slice(None),) * ndim
    return (*every[:axis], here, *every[axis + 1 :]), (*every[:axis], there, *every[axis + 1 :])


def _span(step: int) -> slice:
    """Places along an axis from which a step stays within it."""
    return slice(None, -step) if step > 0 else slice(-step or None, None)


def _views(offset: tuple[int, ...]) -> tuple[Slices, Slices]:
    """Views of all voxels that have one at an offset, and of those."""
    return tuple(map(_span, offset)), tuple(_span(-step) for step in offset)


def _connected(mask: NDArray[np.bool_], offset: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether a voxel and the one at an offset are foreground, and connected by a face or around the edge that they share."""
    here, there = _views(offset)
    both = mask[here] & mask[there]
    axes = np.flatnonzero(offset)
    if len(axes) < 2:
        return both
    beside = np.zeros(both.shape, bool)
    for axis in axes:
        beside |= mask[(*here[:axis], there[axis], *here[axis + 1 :])]
    return both & beside


def _label(mask: NDArray[np.bool_], min_size: int) -> NDArray[np.int32]:
    """Label the connected components of a mask; see `group`."""
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
