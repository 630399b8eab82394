"""Walk a plan: the tiles of the network, and then what needs all of them. Who walks is the executor's matter.

This file knows the order of things alone: what is done with a tile is in `tile_job` and `finish_job`.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.engines import Engine
from im2im_zoo.images.sink import Sink
from im2im_zoo.runtime.execute.executors.in_process import run_here
from im2im_zoo.runtime.execute.finish_job import FinishJob
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.tile_job import Report, Scratch, TileJob, scratch_outputs, scratch_shape
from im2im_zoo.runtime.plan.plan import Plan

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Stage = Literal["statistics", "tiles", "finish", "grouping"]
Progress = Callable[[Stage, int, int], None]
Done = Callable[[Stage, int, Report], None]
# Runs units of a job, calls the function for each that is done, and raises what goes wrong.
Executor = Callable[[Sequence[int], Callable[[int, Report], None]], None]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was counted: tiles run, voxels written (without channels), values that are not finite."""

    tiles: int
    voxels: int
    not_finite: int


@dataclass(slots=True)
class Walk:
    """A plan on its way.

    Attributes:
        samples: of the plan; `images` and `package` are theirs.
        sinks: where the outputs go.
        scratch: what keeps outputs that are finished later (see `new_scratch`).
        executor: runs the tiles; what comes after them runs in this process.
        finished: the tiles of each stage that an earlier run has done.
        done: called for each tile that is done, in this thread.
        progress: called with the stage, the voxels of the reference that are done in it, and all of them; of the statistics,
            with values that were read, and from another thread.
    """

    samples: SampleMaker
    sinks: Sequence[Sink]
    scratch: Mapping[int, Scratch]
    executor: Executor
    finished: Mapping[str, Collection[int]]
    done: Done | None = None
    progress: Progress | None = None
    voxels: int = 0
    not_finite: int = 0

    @property
    def plan(self) -> Plan:
        """What is walked."""
        return self.samples.plan

    def run(self) -> Figures:
        """Run all that is not finished.

        Raises:
            PackageError, ProcessingError, ImageError: what the network, an operation or a file refuses.
        """
        self._stage("tiles", self.executor)
        if self.scratch:
            job = FinishJob(self.samples, self.sinks, self.scratch)
            self._stage("finish", lambda units, done: run_here(job, units, done))
        return Figures(len(self.plan), self.voxels, self.not_finite)

    def _stage(self, stage: Stage, executor: Executor) -> None:
        plan, known = self.plan, self.finished.get(stage, ())
        units = [i for i in range(len(plan)) if i not in known]
        reached = sum(self._kept(i) for i in known)
        if self.progress is not None and (reached or stage == "finish"):
            self.progress(stage, reached, plan.voxels)

        def done(unit: int, report: Report) -> None:
            nonlocal reached
            self.voxels += report.voxels
            self.not_finite += report.not_finite
            reached += self._kept(unit)
            if self.done is not None:
                self.done(stage, unit, report)
            if self.progress is not None:
                self.progress(stage, reached, plan.voxels)

        if units:
            executor(units, done)

    def _kept(self, unit: int) -> int:
        return math.prod(s.stop - s.start for s in self.plan.tile(unit).keeps.values())


def run_plan(
    plan: Plan,
    package: "Package",
    engine: Engine,
    images: Mapping[str, xr.DataArray],
    sinks: Sequence[Sink],
    *,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> Figures:
    """Run all tiles of a plan in this process, with what has to wait kept in memory.

    Args:
        plan: of this package and these images.
        engine: the network, of the plan's weights.
        images: by input.
        sinks: where the outputs go.
        allow_code: whether `custom` operations of the package may run.
        progress: see `Walk`.

    Raises:
        PackageError, ProcessingError, ImageError: what the network, an operation or a file refuses.
    """
    samples = SampleMaker(plan, package, images, allow_code=allow_code)
    scratch = new_scratch(plan, lambda number, shape, dtype: np.empty(shape, dtype))
    job = TileJob(samples, engine, sinks, scratch)
    walk = Walk(
        samples, sinks, scratch, lambda units, done: run_here(job, units, done), {}, progress=progress
    )
    return walk.run()


def new_scratch(plan: Plan, make: Callable[[int, tuple[int, ...], str], Any]) -> dict[int, Scratch]:
    """The scratch arrays of the outputs that need one, by the number of the output.

    Args:
        make: of the number, the shape and the dtype.
    """
    return {n: make(n, scratch_shape(plan, n), scratch_dtype(plan, n)) for n in scratch_outputs(plan)}


def scratch_dtype(plan: Plan, number: int) -> str:
    """float32, or float64 for an output whose values may need more digits."""
    dtype = np.dtype(plan.outputs[number].dtype)
    return (
        "float64" if dtype.kind in "iuf" and dtype.itemsize > (2 if dtype.kind != "f" else 4) else "float32"
    )
