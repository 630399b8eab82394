"""Any segmentation function in blocks: each block is segmented with an overlap, and each object is owned by one block.

    view/BLOCK          zarr: the objects of a block and its surroundings (its view), numbered within the view
    view_ids/BLOCK      their ids: flat index of the first voxel in the image, plus one
    view_region/BLOCK   region of the view: start and stop along each axis; view_regions/0: of all
    judged/BLOCK        largest extent of an object, the overlap it needs in voxels, and whether that exceeded the memory
    disagreeing/BLOCK   number of voxels of the block whose labels differ between two views

The block with an object's first voxel owns it and gives all of its voxels; other views of the object are only compared.
docs/instances.md states when the labels are those of the whole image.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.instances.blockwise.grid import Region, relative
from im2im_zoo.instances.blockwise.numbers import number_objects
from im2im_zoo.instances.blockwise.order import compact, first_voxels, renumber
from im2im_zoo.instances.blockwise.sample import Sample, sizes
from im2im_zoo.instances.blockwise.steps import Step

# The first overlap is a block divided by this.
_PART = 8


def steps(sample: Sample) -> Iterator[Step]:
    """Yield the steps up to the numbers of all objects; see `blockwise.run`."""
    blocks = range(len(sample.grid))
    yield Step("views", blocks, segment_view)
    sample.save("view_regions", 0, np.stack([sample.load("view_region", n) for n in blocks]))
    yield Step("gathered", blocks, gather)
    number_objects(sample, "rows", lambda rows: np.ones(rows.shape[1], bool))


def warnings(sample: Sample) -> list[str]:
    """Return warnings about the labels, after all steps."""
    judged = np.array(list(sample.tables("judged"))).reshape(-1, 3)
    short = judged[judged[:, 2] > 0]
    found = []
    if len(short):
        found.append(
            f"instance segmentation: {len(short)} of {len(judged)} blocks have objects of {int(short[:, 0].max())} voxels or more along "
            f"an axis, which need an overlap of {int(short[:, 1].max())}, but the memory is not enough; they may be cut at block "
            "borders: use more --memory"
        )
    differing = int(sum(int(t[0]) for t in sample.tables("disagreeing")))
    if differing:
        found.append(
            f"instance segmentation: the labels of {differing} voxels differ between two blocks, as the method depends on more than "
            "twice the largest object; use more --memory for larger blocks"
        )
    return found


def segment_view(sample: Sample, number: int) -> None:
    """Segment a block with an overlap, which is increased until it is twice as large as the block's objects."""
    grid, inner = sample.grid, sample.grid.region(number)
    margin = [
        0 if side >= n else max(1, side // _PART) for side, n in zip(grid.block, grid.shape, strict=True)
    ]
    most = max(sample.room // sample.each, math.prod(grid.block))
    while True:
        region = sample.align(grid.grow(inner, margin))
        labels = renumber(sample.segment(region))
        longest, needed = _needed_overlap(labels, inner, region)
        larger = [max(m, n) for m, n in zip(margin, needed, strict=True)]
        wanted = sample.align(grid.grow(inner, larger))
        is_enough = wanted == region
        if is_enough or math.prod(sizes(wanted)) > most:
            break
        margin = larger
    sample.save("view_ids", number, 1 + grid.flat(region, first_voxels(labels)))
    sample.save("view_region", number, np.array([[s.start, s.stop] for s in region]))
    sample.keep_array("view", number, labels)
    sample.save("judged", number, np.array([longest, max(needed), not is_enough]))


def gather(sample: Sample, number: int) -> None:
    """Assemble a block from the objects of all blocks whose views overlap it."""
    inner = sample.grid.region(number)
    own_view = _ids_in_view(sample, number, inner, owned=False)
    result, differing = np.zeros(sizes(inner), np.int64), np.zeros(sizes(inner), bool)
    spans = np.array([[s.start, s.stop] for s in inner])
    regions = sample.load("view_regions", 0)
    meets = ((regions[..., 0] < spans[:, 1]) & (regions[..., 1] > spans[:, 0])).all(axis=1)
    for other in np.flatnonzero(meets):
        theirs = _ids_in_view(sample, int(other), inner, owned=True)
        differing |= (theirs > 0) & (result > 0)
        # A voxel of two objects belongs to the first in raster order.
        result = np.where((theirs > 0) & ((result == 0) | (theirs < result)), theirs, result)
    differing |= result != own_view
    labels, objects = compact(result)
    sample.save("disagreeing", number, np.array([np.count_nonzero(differing)]))
    sample.save("rows", number, objects[None])
    sample.keep_local(number, labels, objects)


def _ids_in_view(sample: Sample, number: int, region: Region, *, owned: bool) -> NDArray[np.int64]:
    """Return the object ids of a region in the view of a block, 0 outside the view; only owned objects if `owned`."""
    ids = np.asarray(sample.load("view_ids", number))
    if owned:
        ids = np.where(sample.grid.owners(sample.grid.coordinates(ids - 1)) == number, ids, 0)
    found = np.zeros(sizes(region), np.int64)
    view = [slice(int(a), int(b)) for a, b in sample.load("view_region", number)]
    both = [slice(max(v.start, r.start), min(v.stop, r.stop)) for v, r in zip(view, region, strict=True)]
    theirs = sample.array("view", number, relative(both, view))
    found[relative(both, region)] = np.concatenate([[0], ids])[theirs]
    return found


def _needed_overlap(labels: NDArray[np.int32], inner: Region, region: Region) -> tuple[int, list[int]]:
    """Return the largest extent of the objects of a block, and the overlap that they need along each axis, in voxels.

    The overlap is twice the extent, so that the view contains the objects of the block and those that they touch. The part
    of an object that the view cuts is longer than the overlap, so that a larger view is needed in any case.
    """
    ours = np.unique(labels[relative(inner, region)])
    boxes = ndimage.find_objects(labels)
    longest = [0] * len(inner)
    for label in ours[ours > 0]:
        extents = [span.stop - span.start for span in boxes[label - 1]]
        longest = [max(known, extent) for known, extent in zip(longest, extents, strict=True)]
    return max(longest), [2 * extent for extent in longest]
