"""Run the tiles of a plan: the stage `tiles` and, for outputs that need all tiles first, the stage `finish`."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.core.jobs import Executor, Job, Stage
from im2im_zoo.engines import Engine
from im2im_zoo.images.sink import Sink
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.execute.finish_job import FinishJob
from im2im_zoo.runtime.execute.sample_maker import SampleMaker
from im2im_zoo.runtime.execute.tile_job import (
    Report,
    Scratch,
    TileJob,
    scratch_outputs,
    scratch_shape,
)
from im2im_zoo.runtime.plan.plan import Plan

if TYPE_CHECKING:
    from im2im_zoo.package import Package

TileStageName = Literal["tiles", "finish"]
ProgressStage = Literal["statistics", "tiles", "finish", "instances", "resampling"]
Progress = Callable[[ProgressStage, int, int], None]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a prediction: tiles, voxels written (without channels), values that are NaN or infinite."""

    tiles: int
    voxels: int
    not_finite: int


@dataclass(slots=True)
class TileStages:
    """The tile stages of a plan.

    Attributes:
        samples: of the plan, its package and images.
        sinks: writers of the outputs.
        scratch: arrays for outputs of the stage `finish` (see `new_scratch`).
        executor: runs the tiles; the stage `finish` runs in this process.
        make_job: creates the tile job for the executor.
        finished: tiles of each stage that an earlier run finished.
        done: called for each finished tile with its stage, number and report, in the calling thread.
        progress: called with the stage, the finished voxels of the reference and their total number.
        check_scratch: called before and after the stage `finish`; raises if parts of the scratch arrays are lost.
    """

    samples: SampleMaker
    sinks: Sequence[Sink]
    scratch: Mapping[int, Scratch]
    executor: Executor
    make_job: Callable[[], Job[Any, Any, Report]]
    finished: Mapping[TileStageName, Collection[int]]
    done: Callable[[TileStageName, int, Report], None] = lambda stage, unit, report: None
    progress: Progress | None = None
    check_scratch: Callable[[], None] = lambda: None
    voxels: int = 0
    not_finite: int = 0

    def run(self) -> Counts:
        """Run all tiles that are not finished.

        Raises:
            PackageError, ProcessingError, ImageError: the network or an operation fails, or a file cannot be read or
                written.
        """
        self._run("tiles", self.executor, self.make_job)
        if self.scratch:
            self.check_scratch()
            self._run("finish", InProcess(), lambda: FinishJob(self.samples, self.sinks, self.scratch))
            self.check_scratch()
        return Counts(len(self.samples.plan), self.voxels, self.not_finite)

    def _run(
        self, name: TileStageName, executor: Executor, make_job: Callable[[], Job[Any, Any, Report]]
    ) -> None:
        plan, finished = self.samples.plan, self.finished.get(name, ())
        if len(finished) == len(plan):
            return
        reached = sum(self._kept_voxels(i) for i in finished)
        if self.progress is not None and (reached or name == "finish"):
            self.progress(name, reached, plan.voxels)

        def done(unit: int, report: Report) -> None:
            nonlocal reached
            self.voxels += report.voxels
            self.not_finite += report.not_finite
            reached += self._kept_voxels(unit)
            self.done(name, unit, report)
            if self.progress is not None:
                self.progress(name, reached, plan.voxels)

        with executor.start(make_job) as session:
            Stage(name, range(len(plan)), done, finished).run(session)

    def _kept_voxels(self, unit: int) -> int:
        return math.prod(s.stop - s.start for s in self.samples.plan.tile(unit).keeps.values())


def run_plan(
    plan: Plan,
    package: "Package",
    engine: Engine,
    images: Mapping[str, xr.DataArray],
    sinks: Sequence[Sink],
    *,
    allow_code: bool = False,
    progress: Progress | None = None,
) -> Counts:
    """Run all tiles of a plan in this process; outputs of the stage `finish` are kept in memory.

    Args:
        plan: of this package and these images.
        engine: the network with the plan's weights.
        images: by input.
        sinks: writers of the outputs.
        allow_code: whether `custom` operations of the package may run.
        progress: see `TileStages`.

    Raises:
        PackageError, ProcessingError, ImageError: the network or an operation fails, or a file cannot be read or written.
    """
    samples = SampleMaker(plan, package, images, allow_code=allow_code)
    scratch = new_scratch(plan, lambda number, shape, dtype: np.empty(shape, dtype))
    return TileStages(
        samples,
        sinks,
        scratch,
        InProcess(),
        lambda: TileJob(samples, engine, sinks, scratch),
        {},
        progress=progress,
    ).run()


def new_scratch(plan: Plan, make: Callable[[int, tuple[int, ...], str], Any]) -> dict[int, Scratch]:
    """Return the scratch arrays of the outputs that need one, by the number of the output.

    Args:
        plan: whose outputs.
        make: called with the number, the shape and the dtype.
    """
    return {n: make(n, scratch_shape(plan, n), scratch_dtype(plan, n)) for n in scratch_outputs(plan)}


def scratch_dtype(plan: Plan, number: int) -> str:
    """Return float32, or float64 for an output that may need more digits."""
    dtype = np.dtype(plan.outputs[number].dtype)
    return (
        "float64" if dtype.kind in "iuf" and dtype.itemsize > (2 if dtype.kind != "f" else 4) else "float32"
    )
