"""Components that are split at narrow necks, in blocks, with the labels of the whole image.

    distances        zarr: square of the distance to the background
    peaks/BLOCK      ids of the regions whose peak is in a block; tops/BLOCK: the squares of the peaks' heights
    exits/BLOCK      ids of the regions that climb out of a block: the first voxels outside
    answers/BLOCK    those of all exits that are in a block, and the region of the block that each is in
    regions/all      all exits, and the region in which each ends
    counts/BLOCK     ids and voxels of the regions of a block
    pairs/BLOCK      ids of touching regions; passes/BLOCK: the square of the height of the highest pass between them
    joined/BLOCK     the object of each region of a block

A region is what climbs to one peak; its id is the peak's place in the flat image, plus one. Distances of a block are computed with as
many voxels around it as the largest distance in it, so that they are those of the image; a step up looks at the next voxels only.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise.grid import Region, relative
from im2im_zoo.instances.blockwise.holes import read_mask
from im2im_zoo.instances.blockwise.numbers import number_objects
from im2im_zoo.instances.blockwise.sample import Sample, arguments, sizes
from im2im_zoo.instances.blockwise.steps import Step
from im2im_zoo.instances.methods import components

_DISTANCES = "distances"
# Voxels around a block that are read first, by number of axes.
_FIRST_MARGIN = {2: 32, 3: 8}
# Bytes per region, and per pass or exit, for merging.
_EACH_REGION, _EACH_PASS = 400, 300


def steps(sample: Sample) -> Iterator[Step]:
    """Yield the steps up to the numbers of all objects; see `blockwise.run`."""
    blocks = range(len(sample.grid))
    sample.begin_array(_DISTANCES, "float32")
    yield Step("regions", blocks, find_regions)
    yield Step("exits", blocks, answer_exits)
    _follow_exits(sample)
    yield Step("passes", blocks, find_passes)
    _merge(sample)
    at_least = arguments(components.group, sample.code.grouping.kwargs)["min_size"]
    number_objects(sample, "rows", lambda rows: rows[1] >= at_least)


def find_regions(sample: Sample, number: int) -> None:
    """Find the distances of one block, and its regions: of voxels that climb to one peak in it, or to one voxel outside."""
    grid, region = sample.grid, sample.grid.region(number)
    near = grid.grow(region, [1] * len(region))
    heights, mask = _distances(sample, region, near)
    inside = relative(region, near)
    peaks = components.climb(heights, mask, inside)[inside]
    there = np.unique(peaks[peaks >= 0])
    ids = 1 + grid.flat(near, there)
    labels = (np.searchsorted(there, peaks) + 1).astype(np.int32)
    labels[peaks < 0] = 0
    order = np.argsort(ids)
    ranks = np.zeros(len(ids) + 1, np.int32)
    ranks[1 + order] = np.arange(1, len(ids) + 1)
    labels, ids, there = ranks[labels], ids[order], there[order]
    at = np.unravel_index(there, mask.shape)
    ours = np.ones(len(ids), bool)
    for place, span in zip(at, inside, strict=True):
        ours &= (place >= span.start) & (place < span.stop)
    counts = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:].astype(np.int64)
    sample.write_part(_DISTANCES, region, heights[inside])
    sample.save("peaks", number, ids[ours])
    sample.save("tops", number, heights.ravel()[there[ours]])
    sample.save("exits", number, ids[~ours])
    sample.save("counts", number, np.stack([ids, counts]))
    sample.keep_local(number, labels, ids)


def answer_exits(sample: Sample, number: int) -> None:
    """Find the regions of one block that the regions of its neighbours climb to."""
    grid, region = sample.grid, sample.grid.region(number)
    around = grid.blocks_in(grid.grow(region, [1] * len(region)))
    exits = np.unique(np.concatenate([sample.load("exits", other) for other in around]))
    exits = exits[grid.owners(grid.coordinates(exits - 1)) == number]
    labels, ids = sample.local(number)
    starts = np.array([s.start for s in region])[:, None]
    found = labels[tuple(grid.coordinates(exits - 1) - starts)]
    sample.save("answers", number, np.stack([exits, ids[found - 1]]))


def find_passes(sample: Sample, number: int) -> None:
    """Find the highest passes between the regions of one block, and to those of its neighbours."""
    grid, region = sample.grid, sample.grid.region(number)
    near = grid.grow(region, [1] * len(region))
    peaks = _regions(sample, near)
    heights = sample.read_part(_DISTANCES, near)
    one, two, passes = components.find_passes(heights, peaks, peaks > 0, relative(region, near))
    sample.save("pairs", number, np.stack([one, two]))
    sample.save("passes", number, passes)


def _distances(sample: Sample, region: Region, near: Region) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return distances and foreground of `near`, the voxels of and next to a block, as they are in the whole image."""
    spacing = arguments(components.group, sample.code.grouping.kwargs)["spacing"]
    each = spacing or (1.0,) * len(region)
    margin = _FIRST_MARGIN[len(region)]
    while True:
        view = sample.grid.grow(region, [math.ceil(margin / size) for size in each])
        voxels = math.prod(sizes(view))
        sample.check_room(voxels * sample.each, f"objects of more than {margin} voxels from border to centre")
        mask = read_mask(sample, view)
        found = components.distances(mask, spacing)[relative(near, view)]
        largest = math.sqrt(float(found.max(initial=0)))
        # The next voxel outside the view is at least as far from `near`.
        cut = any((v.start > 0 or v.stop < n) for v, n in zip(view, sample.grid.shape, strict=True))
        if not cut or largest <= margin - max(each):
            return found, mask[relative(near, view)]
        margin = 2 * margin if math.isinf(largest) else max(2 * margin, math.ceil(largest + max(each)))


def _regions(sample: Sample, region: Region) -> NDArray[np.int64]:
    """Return the ids of the regions of any part of the image, 0 for background."""
    found = np.zeros(sizes(region), np.int64)
    for number in sample.grid.blocks_in(region):
        block = sample.grid.region(number)
        both = tuple(
            slice(max(b.start, r.start), min(b.stop, r.stop)) for b, r in zip(block, region, strict=True)
        )
        ids = _ends(sample, np.asarray(sample.load("ids", number)))
        labels = sample.read_part("local", both)
        found[relative(both, region)] = np.concatenate([[0], ids])[labels]
    return found


def _follow_exits(sample: Sample) -> None:
    """Save the region in which each exit ends."""
    tables = [sample.load("answers", n) for n in range(len(sample.grid))]
    sample.check_room(
        _EACH_PASS * sum(t.shape[1] for t in tables), "the objects that touch faces between blocks"
    )
    exits, ends = np.concatenate(tables, axis=1)
    order = np.argsort(exits)
    exits, ends = exits[order], ends[order]
    # The region of an exit may climb out of its block too, to a higher voxel, until one is a peak.
    while not np.array_equal(further := _look_up(exits, ends, ends), ends):
        ends = further
    sample.save("regions", "all", np.stack([exits, ends]))


def _ends(sample: Sample, ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the regions in which those of a block end: of other blocks, where they climb out of it."""
    exits, ends = sample.load("regions", "all")
    return _look_up(exits, ends, ids)


def _look_up(
    known: NDArray[np.int64], values: NDArray[np.int64], ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the value of each id that is known (sorted), and the others as they are."""
    if not len(known):
        return ids
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, values[at], ids)


def _merge(sample: Sample) -> None:
    """Save the object of each region, and the sizes of the objects."""
    blocks = range(len(sample.grid))
    neck = arguments(components.group, sample.code.grouping.kwargs)["neck"]
    ids = np.concatenate([sample.load("peaks", n) for n in blocks])
    tops = np.concatenate([sample.load("tops", n) for n in blocks])
    pairs = np.concatenate([sample.load("pairs", n) for n in blocks], axis=1)
    passes = np.concatenate([sample.load("passes", n) for n in blocks])
    sample.check_room(_EACH_REGION * len(ids) + _EACH_PASS * len(passes), "the regions that may be split")
    order = np.argsort(ids)
    ids, tops = ids[order], tops[order]
    one, two, passes = components.highest(pairs[0], pairs[1], passes)
    objects = ids[components.merge(tops, np.searchsorted(ids, one), np.searchsorted(ids, two), passes, neck)]
    voxels = np.zeros(len(ids), np.int64)
    for number in blocks:
        known, counts = sample.load("counts", number)
        ours = objects[np.searchsorted(ids, _ends(sample, np.asarray(known)))]
        np.add.at(voxels, np.searchsorted(ids, ours), counts)
        sample.save("joined", number, np.stack([known, ours]))
    sample.save("rows", "all", np.stack([ids, voxels])[:, voxels > 0])
