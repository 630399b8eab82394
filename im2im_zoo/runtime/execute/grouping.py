"""Group the maps of a prediction into labels, one position of the loops after the other, whole or in blocks."""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from im2im_zoo.images.sink import Sink
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.order import numbered
from im2im_zoo.instances.blockwise.run import group_in_blocks, passes
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.instances.blockwise.steps import Walker
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Records:
    """What is done, and who is told of it.

    Attributes:
        finished: numbers of samples.
        done: called with the number of each sample that is written, and how many objects it has; what is told of has to be
            on the disk when it returns.
        steps: of samples that are grouped in blocks: the sample, the step and the block.
        step: called with these, and with the part of the sample's work that is done.
    """

    finished: Collection[int] = ()
    done: Callable[[int, int], None] = lambda sample, objects: None
    steps: Collection[tuple[int, str, int]] = ()
    step: Callable[[int, str, int, float], None] = lambda sample, step, block, part: None


def group_samples(
    plan: Plan,
    code: Code,
    maps: xr.DataArray,
    sink: Sink,
    folder: Path,
    *,
    records: Records | None = None,
    workers: int = 1,
    threads: int | None = None,
) -> list[str]:
    """Group the maps of all samples but those that are finished.

    Args:
        plan: with a grouping.
        code: of the grouping.
        maps: the whole output image, lazy or not.
        sink: where the label image goes; one that can be sent to other processes, if there are several workers.
        folder: for what is found out about blocks on the way.
        records: what is done.
        workers: processes that group blocks; `threads` is of each.

    Returns:
        What a person should know of the labels.

    Raises:
        PackageError: what the function does not do.
        PlanError: more objects than the label image's type has numbers, or than fit the memory.
        ImageError: maps that cannot be read, or labels that cannot be written.
    """

    ours, records, found = plan.grouping, records or Records(), []
    if ours is None:
        raise ValueError("a plan without grouping")
    for number in range(plan.samples):
        if number in records.finished:
            continue
        position = plan.position(number)
        target = LabelImage(sink, ours.axes, ours.shape, ours.dtype, ours.space, position, plan.model)
        grid, place = BlockGrid(ours.sizes, ours.block or ours.sizes), folder / f"grouping_{number}"
        sample = Sample(maps.isel(position), ours.space, grid, place, code, ours.bytes, ours.each)
        if ours.block is None:
            objects = _at_once(ours, sample, target)
        else:
            walker = _walker(ours, number, len(grid), records, workers, threads)
            objects, warnings = group_in_blocks(sample, target, walker)
            found += warnings
        records.done(number, objects)
        shutil.rmtree(place, ignore_errors=True)
    return found


def _at_once(ours: GroupPlan, sample: Sample, target: LabelImage) -> int:

    whole = sample.grid.region(0)
    labels = sample.grouped(whole)
    # Ours number the objects by their seeds; those of others get their numbers here, as they do in blocks.
    labels = labels if ours.method is not None else numbered(labels)
    objects = int(labels.max(initial=0))
    target.check(objects)
    target.write(whole, labels)
    return objects


def _walker(
    ours: GroupPlan, number: int, blocks: int, records: Records, workers: int, threads: int | None
) -> Walker:

    finished = {(step, block) for sample, step, block in records.steps if sample == number}
    told, total = len(finished), passes(ours.method) * blocks

    def tell(step: str, block: int) -> None:
        nonlocal told
        told += 1
        records.step(number, step, block, min(told / total, 0.99))

    return Walker(finished, tell, workers, threads)
