"""Any grouping block by block: each block is grouped with what is around it, and each object is that of the block that owns it.

    view/BLOCK          zarr: the objects of a block and its surroundings, numbered within it
    view_ids/BLOCK      their ids: the first voxel in the flat image, plus one
    view_region/BLOCK   where it lies: start and stop along each axis; view_regions/0: of all
    judged/BLOCK        the farthest that an object extends, voxels of overlap that this takes, and whether that was more than
                        the memory lets
    disagreeing/BLOCK   voxels of the block of which two blocks say different things

The block that has an object's first voxel owns it, and gives all of its voxels, wherever they are. What others see of it is
compared and never used. When that is the grouping of the whole image: docs/instances.md.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.instances.blockwise.grid import Region
from im2im_zoo.instances.blockwise.numbers import number_objects
from im2im_zoo.instances.blockwise.order import compacted, first_voxels, numbered
from im2im_zoo.instances.blockwise.sample import Sample, sizes
from im2im_zoo.instances.blockwise.steps import Step

# The first overlap, in parts of a block.
_PART = 8


def steps(sample: Sample) -> Iterator[Step]:
    """What makes the numbers of all objects; see `blockwise.run`."""
    blocks = range(len(sample.grid))
    yield Step("views", blocks, see)
    sample.save("view_regions", 0, np.stack([sample.load("view_region", n) for n in blocks]))
    yield Step("gathered", blocks, gather)
    number_objects(sample, "rows", lambda rows: np.ones(rows.shape[1], bool))


def warnings(sample: Sample) -> list[str]:
    """What a person should know of the result, once it is there."""
    judged = np.array(list(sample.tables("judged"))).reshape(-1, 3)
    short = judged[judged[:, 2] > 0]
    found = []
    if len(short):
        found.append(
            f"grouping: {len(short)} of {len(judged)} blocks have objects of {int(short[:, 0].max())} voxels or more along an axis, for "
            f"which the memory leaves no overlap of {int(short[:, 1].max())}; they may be cut there: give more --memory"
        )
    differing = int(sum(int(t[0]) for t in sample.tables("disagreeing")))
    if differing:
        found.append(
            f"grouping: {differing} voxels are seen differently from two blocks: the method looks farther than twice the largest "
            "object; give more --memory, so that it has larger blocks"
        )
    return found


def see(sample: Sample, number: int) -> None:
    """Group a block with its surroundings; again with more of them, until its objects lie well within."""
    grid, inner = sample.grid, sample.grid.region(number)
    margin = [
        0 if side >= n else max(1, side // _PART) for side, n in zip(grid.block, grid.shape, strict=True)
    ]
    most = max(sample.room // sample.each, math.prod(grid.block))
    while True:
        region = sample.aligned(grid.grown(inner, margin))
        labels = numbered(sample.grouped(region))
        longest, needed = _judge(labels, inner, region)
        larger = [max(m, n) for m, n in zip(margin, needed, strict=True)]
        wanted = sample.aligned(grid.grown(inner, larger))
        suffices = wanted == region
        if suffices or math.prod(sizes(wanted)) > most:
            break
        margin = larger
    sample.save("view_ids", number, 1 + grid.flat(region, first_voxels(labels)))
    sample.save("view_region", number, np.array([[s.start, s.stop] for s in region]))
    sample.keep_array("view", number, labels)
    sample.save("judged", number, np.array([longest, max(needed), not suffices]))


def gather(sample: Sample, number: int) -> None:
    """Put a block together of the objects of all blocks that reach into it."""
    inner = sample.grid.region(number)
    seen = _seen(sample, number, inner, owned=False)
    result, differing = np.zeros(sizes(inner), np.int64), np.zeros(sizes(inner), bool)
    spans = np.array([[s.start, s.stop] for s in inner])
    regions = sample.load("view_regions", 0)
    meets = ((regions[..., 0] < spans[:, 1]) & (regions[..., 1] > spans[:, 0])).all(axis=1)
    for other in np.flatnonzero(meets):
        theirs = _seen(sample, int(other), inner, owned=True)
        differing |= (theirs > 0) & (result > 0)
        # Where two claim a voxel, the first in raster order has it.
        result = np.where((theirs > 0) & ((result == 0) | (theirs < result)), theirs, result)
    differing |= result != seen
    labels, objects = compacted(result)
    sample.save("disagreeing", number, np.array([np.count_nonzero(differing)]))
    sample.save("rows", number, objects[None])
    sample.keep_local(number, labels, objects)


def _seen(sample: Sample, number: int, region: Region, *, owned: bool) -> NDArray[np.int64]:
    """The ids of what a block has seen of a region, 0 where it has not looked; or of those objects alone that it owns."""
    ids = np.asarray(sample.load("view_ids", number))
    if owned:
        ids = np.where(sample.grid.owners(sample.grid.coordinates(ids - 1)) == number, ids, 0)
    found = np.zeros(sizes(region), np.int64)
    view = [slice(int(a), int(b)) for a, b in sample.load("view_region", number)]
    both = [slice(max(v.start, r.start), min(v.stop, r.stop)) for v, r in zip(view, region, strict=True)]
    theirs = tuple(slice(b.start - v.start, b.stop - v.start) for b, v in zip(both, view, strict=True))
    ours = tuple(slice(b.start - r.start, b.stop - r.start) for b, r in zip(both, region, strict=True))
    found[ours] = np.concatenate([[0], ids])[sample.array("view", number, theirs)]
    return found


def _judge(labels: NDArray[np.int32], inner: Region, region: Region) -> tuple[int, list[int]]:
    """How far objects that have voxels of a block extend at most, and the overlap along each axis that they take.

    That is twice as far: so an object of the block lies within its view, and those that it touches do. What is seen of one
    that the view cuts is longer than the overlap, so that the view then has to be larger in any case.
    """
    within = tuple(slice(i.start - r.start, i.stop - r.start) for i, r in zip(inner, region, strict=True))
    ours = np.unique(labels[within])
    boxes = ndimage.find_objects(labels)
    longest = [0] * len(inner)
    for label in ours[ours > 0]:
        extents = [span.stop - span.start for span in boxes[label - 1]]
        longest = [max(known, extent) for known, extent in zip(longest, extents, strict=True)]
    return max(longest), [2 * extent for extent in longest]
