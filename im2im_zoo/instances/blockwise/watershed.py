"""The seeded watershed in blocks: the certain part of each block's forest, then the forest of the remaining regions.

    kept/BLOCK              edges within a block that may be part of the whole forest: ids of both ends, and places
    order/BLOCK             heights of these edges
    faces, heights, seeds   of the voxels at each face between blocks

The labels are those of the whole image. The id of a region is the first voxel of its seed, or its own first voxel without
a seed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise.components import joined_steps
from im2im_zoo.instances.blockwise.grid import Region, face, relative
from im2im_zoo.instances.blockwise.regions import Touching, keep_regions, save_joined, touching
from im2im_zoo.instances.blockwise.sample import Sample, arguments
from im2im_zoo.instances.blockwise.steps import Step
from im2im_zoo.instances.methods import watershed
from im2im_zoo.instances.methods.watershed import Edges


def steps(sample: Sample) -> Iterator[Step]:
    """Return the steps up to the numbers of all objects; see `blockwise.run`."""
    return joined_steps(sample, watershed.group, find, join)


def find(sample: Sample, number: int) -> None:
    """Find the regions of one block and the edges between them that may be part of the whole forest."""
    given = arguments(watershed.group, sample.code.grouping.kwargs)
    del given["min_size"]
    grid, region = sample.grid, sample.grid.region(number)
    mask, seeds, heights = _terrain(sample, region, given)
    voxels, edges = watershed.graph_of(mask, seeds, heights)
    in_seed = seeds.ravel()[voxels]
    trees, rooted = watershed.rooted_in(edges, in_seed)
    at_face = np.zeros(mask.shape, bool)
    for axis, far, _ in grid.faces(number):
        face(at_face, axis, far)[...] = True
        name = f"{number}_{axis}_{int(far)}"
        sample.save("heights", name, face(watershed.heights_along(heights, axis, mask.ndim), axis, far))
        sample.save("seeds", name, face(seeds, axis, far))
    waiting = np.zeros(len(voxels), bool)
    waiting[trees[at_face.ravel()[voxels]]] = True
    trees, rooted, _ = watershed.forest(trees, edges, rooted, waiting)
    # Of the remaining edges, only those of this block's forest can be part of the whole forest.
    *_, kept = watershed.forest(trees, edges, rooted, np.zeros(len(voxels), bool))
    nodes = np.where(rooted, watershed.first_seeds(trees, in_seed), np.arange(len(voxels)))
    _keep(sample, number, voxels, trees, nodes, rooted, edges.of(kept), mask)


def _terrain(
    sample: Sample, region: Region, given: Mapping[str, Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float32]]:
    """Return mask, seeds and heights of a region, read with a margin so that they equal those of the whole image."""
    margin = [0 if given["affinities"] is None else 1] * len(region)
    view = sample.grid.grow(region, margin)
    mask, seeds, heights = watershed.terrain(sample.read(view), **given)
    inner = relative(region, view)
    # Heights may have an additional first axis.
    return mask[inner], seeds[inner], heights[(slice(None),) * (heights.ndim - mask.ndim) + inner]


def _keep(
    sample: Sample,
    number: int,
    voxels: NDArray[np.intp],
    trees: NDArray[np.intp],
    nodes: NDArray[np.intp],
    rooted: NDArray[np.bool_],
    edges: Edges,
    mask: NDArray[np.bool_],
) -> None:
    """Save the regions and edges of a block; `nodes` maps each tree to the node that gives its id."""
    grid, region = sample.grid, sample.grid.region(number)
    found, counts = np.unique(trees, return_counts=True)
    order = np.argsort(nodes[found])
    found, counts = found[order], counts[order].astype(np.int64)
    ids = 1 + grid.flat(region, voxels[nodes[found]])
    rank = np.zeros(len(trees), np.int32)
    rank[found] = np.arange(1, len(found) + 1)
    labels = np.zeros(mask.size, np.int32)
    labels[voxels] = rank[trees]
    ends = np.stack([rank[trees[edges.one]], rank[trees[edges.two]]]).astype(np.intp) - 1
    has_edge = np.zeros(len(found), bool)
    has_edge[ends.ravel()] = True
    axes = mask.ndim
    places = axes * grid.flat(region, edges.place // axes) + edges.place % axes
    sample.save("kept", number, np.stack([ids[ends[0]], ids[ends[1]], places]))
    sample.save("order", number, np.stack([edges.high, edges.low]))
    keep_regions(sample, number, labels.reshape(mask.shape), ids, counts, rooted[found], has_edge)


def join(sample: Sample) -> None:
    """Compute the forest of all regions that touch a face or have an edge to one that does, and save it."""
    found = touching(sample)
    tables = [_kept(sample, n, found) for n in range(len(sample.grid))]
    tables += [_across(sample, n, axis, other, found) for n in range(len(sample.grid)) for axis, far, other in sample.grid.faces(n) if far]  # fmt: skip
    edges = Edges(*(np.concatenate(part) for part in zip(*tables, strict=True))).in_order()
    trees, rooted = watershed.rooted_in(edges, found.complete)
    # A seed is the root of each of its regions, even if they do not touch.
    trees, rooted, _ = watershed.forest(trees, edges, rooted, np.zeros(len(found.ids), bool))
    roots = np.full(len(found.ids), np.iinfo(np.int64).max)
    np.minimum.at(roots, trees[found.complete], found.ids[found.complete])
    save_joined(sample, found, np.where(rooted[trees], roots[trees], 0))


def _kept(sample: Sample, number: int, found: Touching) -> Edges:
    """Load the edges that a block saved; nodes are indices into `found.ids`."""
    one, two, places = sample.load("kept", number)
    high, low = sample.load("order", number)
    return Edges(found.places(one), found.places(two), high, low, places)


def _across(sample: Sample, number: int, axis: int, other: int, found: Touching) -> Edges:
    """Return the edges across the far face of a block, only the first between each two regions."""
    ours, theirs = f"{number}_{axis}_1", f"{other}_{axis}_0"
    one, two = sample.load("faces", ours).ravel(), sample.load("faces", theirs).ravel()
    of_edges = arguments(watershed.group, sample.code.grouping.kwargs)["affinities"] is not None
    there = np.asarray(sample.load("heights", theirs)).ravel()
    both = (one > 0) & (two > 0) & (there < np.inf)
    same = (sample.load("seeds", ours) & sample.load("seeds", theirs)).ravel()[both]
    near, far = np.asarray(sample.load("heights", ours)).ravel()[both], there[both]
    region = sample.grid.region(number)
    shape = [s.stop - s.start for s in region]
    local = face(np.arange(np.prod(shape)).reshape(shape), axis, far=True).ravel()[both]
    places = sample.grid.flat(region, local) * len(shape) + axis
    edges = Edges(
        found.places(one[both]), found.places(two[both]), *watershed.ends(near, far, same, of_edges), places
    ).in_order()
    _, first = np.unique(np.stack([edges.one, edges.two]), axis=1, return_index=True)
    return edges.of(first)
