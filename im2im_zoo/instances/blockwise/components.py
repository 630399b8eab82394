"""Connected components in blocks: those of each block, joined across faces, with the labels of the whole image.

A component's id is its first voxel in raster order. `holes` fills holes before, `splitting` splits components at narrow necks.
"""

from collections.abc import Callable, Iterator

import numpy as np

from im2im_zoo.instances.blockwise import holes, splitting
from im2im_zoo.instances.blockwise.numbers import number_objects
from im2im_zoo.instances.blockwise.order import first_voxels
from im2im_zoo.instances.blockwise.regions import join, keep_regions
from im2im_zoo.instances.blockwise.sample import Sample, arguments
from im2im_zoo.instances.blockwise.steps import Step
from im2im_zoo.instances.methods import components


def steps(sample: Sample) -> Iterator[Step]:
    """Yield the steps up to the numbers of all objects; see `blockwise.run`."""
    yield from holes.steps(sample)
    if arguments(components.group, sample.code.grouping.kwargs)["split_touching"]:
        yield from splitting.steps(sample)
    else:
        yield from joined_steps(sample, components.group, find, join)


def joined_steps(
    sample: Sample,
    group: Callable[..., object],
    find: Callable[[Sample, int], None],
    join: Callable[[Sample], None],
) -> Iterator[Step]:
    """Yield the steps of a method that finds the regions of each block and then joins them to objects.

    Args:
        sample: to segment.
        group: the method for whole images; its `min_size` holds for the joined objects.
        find: saves the regions of a block, by `keep_regions`.
        join: saves the objects of all regions that may be joined, by `save_joined`.
    """
    yield Step("find", range(len(sample.grid)), find)
    join(sample)
    at_least = arguments(group, sample.code.grouping.kwargs)["min_size"]
    number_objects(sample, "rows", lambda rows: rows[1] >= at_least)


def find(sample: Sample, number: int) -> None:
    """Find the components of one block."""
    region = sample.grid.region(number)
    labels = components.group(holes.read_mask(sample, region)[None].astype(np.float32))
    ids = 1 + sample.grid.flat(region, first_voxels(labels))
    sizes = np.bincount(labels.ravel(), minlength=len(ids) + 1)[1:].astype(np.int64)
    keep_regions(sample, number, labels, ids, sizes, np.ones(len(ids), bool))
