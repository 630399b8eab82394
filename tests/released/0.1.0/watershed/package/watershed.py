"""Instances by a seeded watershed on a map of the inside, of distances, of boundaries, or of affinities. It needs numpy only.

Seeds are the connected components of where a map exceeds a threshold. They grow over the foreground, over the lowest passes:
an edge between two neighbours is as high as the higher of them, and each voxel belongs to the seed that it reaches with no
higher edge than it has to. That is the minimum spanning forest rooted in the seeds, of which Cousty et al. 2009, "Watershed
Cuts: Minimum Spanning Forests and the Drop of Water Principle", doi:10.1109/TPAMI.2008.173, show that it is the watershed.
Of edges that are equally high the one whose lower end is lower comes first, then the first in raster order. So there is one
forest, however it is found: here by Borůvka's algorithm, for all voxels at once.

Affinities say of each voxel and the one before it along an axis how sure they are of one object. They are edges by themselves: the
surer, the lower. Those to voxels farther away, and those that repel (as a mutex watershed has them), are not for this method.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


def group(
    maps: NDArray[np.float32],
    *,
    channel: int = 0,
    seed_threshold: float = 0.8,
    foreground_threshold: float = 0.5,
    boundary: int | None = None,
    affinities: int | None = None,
    min_size: int = 1,
) -> NDArray[np.int32]:
    """Label the objects; voxels connect through their faces.

    Args:
        maps: (channel, (z,) y, x).
        channel: of the map of the inside: a probability, or the distance from the border of the object.
        seed_threshold: a seed is a connected component of where that map exceeds it.
        foreground_threshold: voxels where it is no more are background.
        boundary: channel of a map of boundaries, over which seeds grow; default: down the map of the inside.
        affinities: the first of the channels, one along each of (z,) y, x, of the affinity of a voxel and the one before it;
            `channel` and `boundary` are not looked at then. A seed's voxels are those of which all affinities exceed
            `seed_threshold`; an affinity that does not exceed `foreground_threshold` joins nothing.
        min_size: voxels; an object that would have fewer is background.

    Returns:
        Labels ((z,) y, x): 0 background, and where no seed is reached; 1..N in raster order of the seeds' first voxels.

    Raises:
        ValueError: no channel of affinities for each axis, or boundaries beside them.
    """
    mask, seeds, heights = terrain(maps, channel, seed_threshold, foreground_threshold, boundary, affinities)
    voxels, edges = graph_of(mask, seeds, heights)
    trees, rooted = rooted_in(edges, seeds.ravel()[voxels])
    trees, rooted, _ = forest(trees, edges, rooted, np.zeros(len(voxels), bool))
    first = first_seeds(trees, seeds.ravel()[voxels])
    sizes = np.bincount(trees, minlength=len(voxels))
    kept = rooted & (sizes >= min_size) & (trees == np.arange(len(voxels)))
    numbers = np.zeros(len(voxels), np.int32)
    numbers[kept] = 1 + np.argsort(np.argsort(first[kept]))
    labels = np.zeros(mask.size, np.int32)
    labels[voxels] = numbers[trees]
    return labels.reshape(mask.shape)


class Edges(NamedTuple):
    """Edges between nodes, those that come first first: both ends, both heights, and the place (voxel and axis)."""

    one: NDArray[np.int32]
    two: NDArray[np.int32]
    high: NDArray[np.float32]
    low: NDArray[np.float32]
    place: NDArray[np.int64]

    def of(self, chosen: NDArray[Any]) -> "Edges":
        """Some of them."""
        return Edges(*(part[chosen] for part in self))

    def in_order(self) -> "Edges":
        """The same, in the order in which they join."""
        return self.of(np.lexsort((self.place, self.low, self.high)))


def terrain(
    maps: NDArray[np.float32],
    channel: int,
    seed_threshold: float,
    foreground_threshold: float,
    boundary: int | None,
    affinities: int | None = None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """The foreground, the seeds in it, and the heights over which they grow: of voxels, or, with one axis more, of edges.

    The height of an edge is along each axis that to the voxel before; +inf where it joins nothing.
    """
    if affinities is not None:
        return _edge_terrain(maps, seed_threshold, foreground_threshold, boundary, affinities)
    inside = maps[channel]
    mask = inside > foreground_threshold
    heights = -inside if boundary is None else maps[boundary]
    if boundary is not None:
        mask &= np.isfinite(heights)
    return mask, mask & (inside > seed_threshold), heights


def _edge_terrain(
    maps: NDArray[np.float32],
    seed_threshold: float,
    foreground_threshold: float,
    boundary: int | None,
    first: int,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """`terrain` of affinities. What the first voxels along an axis say of those before them, which there are none, is nothing."""
    shape = maps.shape[1:]
    if boundary is not None or not 0 <= first <= len(maps) - len(shape):
        raise ValueError(
            f"maps of {len(maps)} channels with affinities={first}, boundary={boundary}: give the first of {len(shape)} channels of "
            "affinities, one an axis, and no boundary beside them"
        )
    heights = np.full((len(shape), *shape), np.inf, np.float32)
    mask, seeds = np.zeros(shape, bool), np.ones(shape, bool)
    for axis in range(len(shape)):
        before, after = _neighbours(axis, len(shape))
        sure = maps[first + axis][after]
        joins, within = sure > foreground_threshold, sure > seed_threshold
        heights[axis][after] = np.where(joins, -sure, np.inf)
        for side in (before, after):
            mask[side] |= joins
            seeds[side] &= within
    return mask, seeds & mask, heights


def _neighbours(axis: int, ndim: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """All voxels that have one after them along an axis, and those."""
    every = (slice(None),) * axis
    return (*every, slice(None, -1)), (*every, slice(1, None))


def heights_along(heights: NDArray[np.float32], axis: int, ndim: int) -> NDArray[np.float32]:
    """Those that count along an axis: of voxels they are the same along all."""
    return heights[axis] if heights.ndim > ndim else heights


def graph_of(
    mask: NDArray[np.bool_], seeds: NDArray[np.bool_], heights: NDArray[np.float32]
) -> tuple[NDArray[np.intp], Edges]:
    """The foreground's places in the flat image, and its edges, whose nodes are places among these."""
    voxels = np.flatnonzero(mask)
    nodes = np.zeros(mask.shape, np.int32)
    nodes[mask] = np.arange(len(voxels), dtype=np.int32)
    parts = []
    for axis in range(mask.ndim):
        before, after = _neighbours(axis, mask.ndim)
        along, of_edges = heights_along(heights, axis, mask.ndim), heights.ndim > mask.ndim
        both = mask[before] & mask[after] & (along[after] < np.inf)
        one, two = nodes[before][both], nodes[after][both]
        same = seeds[before][both] & seeds[after][both]
        place = voxels[one].astype(np.int64) * mask.ndim + axis
        parts.append(Edges(one, two, *ends(along[before][both], along[after][both], same, of_edges), place))
    return voxels, Edges(*(np.concatenate(part) for part in zip(*parts, strict=True))).in_order()


def ends(
    one: NDArray[np.float32], two: NDArray[np.float32], same: NDArray[np.bool_], of_edges: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The higher and the lower height of edges; what is the same seed is joined before anything else.

    Args:
        one, two: heights of both ends, or, `of_edges`, the second that of the edge.
    """
    low, high = (two.copy(), two.copy()) if of_edges else (np.minimum(one, two), np.maximum(one, two))
    low[same] = high[same] = -np.inf
    return high, low


def rooted_in(edges: Edges, seeds: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Trees of which each seed is one, and which of them are rooted; a tree's number is one of its nodes.

    Args:
        seeds: which nodes are in a seed.
    """
    none = np.zeros(len(seeds), bool)
    trees, _, _ = forest(np.arange(len(seeds)), edges.of(edges.high == -np.inf), none, none)
    rooted = none.copy()
    rooted[trees[seeds]] = True
    return trees, rooted


def forest(
    trees: NDArray[np.intp], edges: Edges, rooted: NDArray[np.bool_], waiting: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Join trees until each that may is rooted, by the edges of the minimum spanning forest.

    Args:
        trees: of each node.
        edges: in their order.
        rooted: by the number of a tree; two that are rooted are never joined.
        waiting: likewise; such a tree may have edges that are not known here, so it joins none by itself.

    Returns:
        The trees, which are rooted, and the places in `edges` of those that joined them.
    """
    places = np.arange(len(edges.one))
    joined = [np.zeros(0, np.intp)]
    while True:
        one, two = trees[edges.one[places]], trees[edges.two[places]]
        apart = (one != two) & ~(rooted[one] & rooted[two])
        places, one, two = places[apart], one[apart], two[apart]
        best = _first_of(one, two, len(trees))
        may = (best < len(places)) & ~rooted & ~waiting
        choosing = np.flatnonzero(may)
        if not len(choosing):
            return trees, rooted, np.unique(np.concatenate(joined))
        chosen = best[choosing]
        parents = np.arange(len(trees))
        parents[choosing] = one[chosen] + two[chosen] - choosing
        # Two that chose the same edge: the lower number stays.
        mutual = choosing[(parents[parents[choosing]] == choosing) & (choosing < parents[choosing])]
        parents[mutual] = mutual
        while not np.array_equal(above := parents[parents], parents):
            parents = above
        joined.append(places[chosen])
        trees = parents[trees]


def _first_of(one: NDArray[np.intp], two: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The first edge at each tree; as many as there are edges if it has none."""
    best, other = np.full(count, len(one)), np.full(count, len(one))
    backwards = np.arange(len(one))[::-1]
    # Of several values that are assigned to one place the last stays.
    best[one[::-1]] = backwards
    other[two[::-1]] = backwards
    return np.asarray(np.minimum(best, other))


def first_seeds(trees: NDArray[np.intp], seeds: NDArray[np.bool_]) -> NDArray[np.intp]:
    """By the number of a tree, the first of its nodes that is in a seed; as many as there are nodes if none is."""
    first = np.full(len(trees), len(trees))
    nodes = np.flatnonzero(seeds)
    np.minimum.at(first, trees[nodes], nodes)
    return first
