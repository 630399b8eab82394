"""Holes of the foreground in blocks: components of the background of each block, joined across faces, and filled.

holes       folder: the components of the background, as those of a foreground are kept; their counts are of voxels at the border
            of the image, so that those of a joined component sum to 0 if and only if it is a hole
mask        zarr: the foreground without holes
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise.grid import Region, face
from im2im_zoo.instances.blockwise.order import first_voxels
from im2im_zoo.instances.blockwise.regions import join, keep_regions
from im2im_zoo.instances.blockwise.sample import Sample, arguments
from im2im_zoo.instances.blockwise.steps import Step
from im2im_zoo.instances.methods import components

_MASK = "mask"


def read_mask(sample: Sample, region: Region) -> NDArray[np.bool_]:
    """Return the foreground of a region, without holes if the method fills them."""
    given = arguments(components.group, sample.code.grouping.kwargs)
    if given["fill_holes"]:
        return sample.read_part(_MASK, region) > 0
    return _above(sample, region)


def steps(sample: Sample) -> Iterator[Step]:
    """Yield the steps after which `read_mask` can be used."""
    if not arguments(components.group, sample.code.grouping.kwargs)["fill_holes"]:
        return
    holes = _holes(sample)
    holes.begin()
    sample.begin_array(_MASK, "uint8")
    yield Step("holes", range(len(sample.grid)), find)
    join(holes)
    yield Step("filled", range(len(sample.grid)), fill)


def find(sample: Sample, number: int) -> None:
    """Find the components of the background of one block, and which are at the border of the image."""
    region = sample.grid.region(number)
    background = ~_above(sample, region)
    labels = components.group(background[None].astype(np.float32))
    ids = 1 + sample.grid.flat(region, first_voxels(labels))
    at_border = np.zeros(labels.shape, bool)
    for axis, (span, size) in enumerate(zip(region, sample.grid.shape, strict=True)):
        if span.start == 0:
            face(at_border, axis, far=False)[...] = True
        if span.stop == size:
            face(at_border, axis, far=True)[...] = True
    counts = np.bincount(labels[at_border], minlength=len(ids) + 1)[1:].astype(np.int64)
    keep_regions(_holes(sample), number, labels, ids, counts, np.ones(len(ids), bool))


def fill(sample: Sample, number: int) -> None:
    """Write the foreground of one block, with the holes in it."""
    holes = _holes(sample)
    labels, ids = holes.local(number)
    known, counts = np.concatenate([holes.load("rows", number), _joined(holes, number)], axis=1)
    is_hole = np.zeros(len(ids) + 1, bool)
    is_hole[1 + np.searchsorted(ids, known)] = counts == 0
    sample.write_part(_MASK, sample.grid.region(number), ((labels == 0) | is_hole[labels]).astype(np.uint8))


def _joined(holes: Sample, number: int) -> NDArray[np.int64]:
    """Return the components of a block that touch others, and the counts of the joined component of each."""
    known, roots = holes.load("joined", number)
    all_roots, counts = holes.load("rows", "joined")
    return np.stack([known, counts[np.searchsorted(all_roots, roots)]])


def _holes(sample: Sample) -> Sample:
    return replace(sample, folder=sample.folder / "holes")


def _above(sample: Sample, region: Region) -> NDArray[np.bool_]:
    given = arguments(components.group, sample.code.grouping.kwargs)
    # `channel` is an index of the maps; one that is read alone is the first.
    return np.asarray(sample.read(region, given["channel"])[0] > given["threshold"])
