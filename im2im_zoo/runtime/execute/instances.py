"""The stage `instances`: segment the maps of a prediction, sample by sample, as a whole or in blocks."""

import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from im2im_zoo.core.jobs import Executor, Stage
from im2im_zoo.images.sink import Sink
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.order import renumber
from im2im_zoo.instances.blockwise.run import group_in_blocks, passes
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.instances.blockwise.steps import StepRunner
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class InstanceLog:
    """Finished samples and blocks, and callbacks for further ones.

    Attributes:
        finished: numbers of samples.
        done: called with the number of each finished sample and its number of objects; must record it durably.
        blocks: (sample, step, block) of samples in blocks.
        block_done: called with sample, step and block, and the finished fraction of the sample (0 to 1).
    """

    finished: Collection[int] = ()
    done: Callable[[int, int], None] = lambda sample, objects: None
    blocks: Collection[tuple[int, str, int]] = ()
    block_done: Callable[[int, str, int, float], None] = lambda sample, step, block, part: None


@dataclass(frozen=True, slots=True)
class SampleReport:
    """The number of objects of a sample, and warnings about its labels."""

    objects: int
    warnings: tuple[str, ...] = ()


def segment_instances(
    plan: Plan,
    code: Code,
    maps: xr.DataArray,
    sink: Sink,
    folder: Path,
    *,
    executor: Executor,
    log: InstanceLog | None = None,
) -> list[str]:
    """Write the labels of all samples that are not finished.

    Args:
        plan: with instance segmentation.
        code: the segmentation function.
        maps: the whole output image, lazy or not.
        sink: writer of the label image; picklable if the executor does not share memory.
        folder: for intermediate results of blocks.
        executor: runs blocks; a sample that fits the memory is segmented as a whole, in this process.
        log: finished samples and blocks.

    Returns:
        Warnings about the labels.

    Raises:
        PackageError: the function fails.
        PlanError: there are more objects than the label image's type or the memory can hold.
        ImageError: the maps cannot be read, or the labels cannot be written.
    """
    if plan.grouping is None:
        raise ValueError("the plan has no instance segmentation")
    log, warnings = log or InstanceLog(), list[str]()
    job = _SampleJob(plan, plan.grouping, code, maps, sink, folder, executor, log)

    def done(number: int, report: SampleReport) -> None:
        warnings.extend(report.warnings)
        log.done(number, report.objects)
        shutil.rmtree(job.folder_of(number), ignore_errors=True)

    # One sample at a time, as the memory is planned for one.
    with InProcess(ahead=0).start(lambda: job) as session:
        Stage("instances", range(plan.samples), done, log.finished).run(session)
    return warnings


@dataclass(frozen=True, slots=True)
class _SampleJob:
    """The job of segmenting samples; a unit is a sample."""

    plan: Plan
    grouping: GroupPlan
    code: Code
    maps: xr.DataArray
    sink: Sink
    folder: Path
    executor: Executor
    log: InstanceLog

    def folder_of(self, number: int) -> Path:
        return self.folder / f"grouping_{number}"

    def read(self, unit: int) -> Sample:
        ours = self.grouping
        grid = BlockGrid(ours.sizes, ours.block or ours.sizes)
        maps = self.maps.isel(self.plan.position(unit))
        return Sample(maps, ours.space, grid, self.folder_of(unit), self.code, ours.bytes, ours.each)

    def compute(self, unit: int, data: Sample) -> SampleReport:
        ours = self.grouping
        position = self.plan.position(unit)
        target = LabelImage(
            self.sink, ours.axes, ours.shape, ours.dtype, ours.space, position, self.plan.model
        )
        if ours.block is None:
            return SampleReport(_segment_whole(ours, data, target))
        objects, warnings = group_in_blocks(data, target, self._runner(unit, len(data.grid)))
        return SampleReport(objects, tuple(warnings))

    def write(self, unit: int, data: SampleReport) -> SampleReport:
        return data

    def _runner(self, number: int, blocks: int) -> StepRunner:
        finished = {(step, block) for sample, step, block in self.log.blocks if sample == number}
        count, total = len(finished), passes(self.grouping.method) * blocks

        def record(step: str, block: int) -> None:
            nonlocal count
            count += 1
            self.log.block_done(number, step, block, min(count / total, 0.99))

        return StepRunner(self.executor, finished, record)


def _segment_whole(ours: GroupPlan, sample: Sample, target: LabelImage) -> int:
    whole = sample.grid.region(0)
    labels = sample.segment(whole)
    # Methods of im2im_zoo number objects by their seeds; others are numbered here, as in blocks.
    labels = labels if ours.method is not None else renumber(labels)
    objects = int(labels.max(initial=0))
    target.check(objects)
    target.write(whole, labels)
    return objects
