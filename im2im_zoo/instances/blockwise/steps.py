"""Steps of instance segmentation in blocks: functions of one block, run through an executor."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.core.jobs import Executor, Session, Stage
from im2im_zoo.instances.blockwise.sample import Sample


@dataclass(frozen=True, slots=True)
class Step:
    """A function of a block, run for many blocks in any order, and again after a crash.

    A step may read the results of earlier steps.

    Attributes:
        name: one word, unique among the steps of a method.
        units: numbers of the blocks.
        do: called with the sample and the number of a block; picklable, so a function of a module.
    """

    name: str
    units: Sequence[int]
    do: Callable[[Sample, int], Any]


@dataclass(frozen=True, slots=True)
class StepRunner:
    """Run steps through an executor, except for blocks that are finished.

    Attributes:
        executor: runs the blocks.
        finished: (step, block) that an earlier run finished.
        record: called with step and block for each finished block, in the calling thread.
    """

    executor: Executor
    finished: Collection[tuple[str, int]] = ()
    record: Callable[[str, int], None] = lambda step, block: None

    @contextmanager
    def start(self, sample: Sample) -> Iterator[Callable[[Step], None]]:
        """Yield a function that runs a step of a sample; workers are kept for all steps."""
        make_job = _JobMaker(sample)
        with self.executor.start(make_job) as session:
            yield partial(self._run, make_job, session)

    def _run(self, make_job: "_JobMaker", session: Session, step: Step) -> None:
        finished = {number for name, number in self.finished if name == step.name}
        stage = Stage(
            step.name,
            step.units,
            lambda number, report: self.record(step.name, number),
            finished,
            partial(_Unit, step.do),
        )
        # Do not start processes for a single block.
        single = len(step.units) - len(finished.intersection(step.units)) < 2
        stage.run(_Inline(make_job()) if single else session)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A block of a step, as it is sent to another process and back."""

    do: Callable[[Sample, int], Any] = field(compare=False)
    number: int

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class _Job:
    """The job of one step: all work is in `compute`, so that only one block is in memory."""

    sample: Sample

    def read(self, unit: _Unit) -> None:
        return None

    def compute(self, unit: _Unit, data: None) -> None:
        unit.do(self.sample, unit.number)

    def write(self, unit: _Unit, data: None) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Inline:
    """A session in the calling thread."""

    job: _Job

    def run(self, units: Any, done: Callable[[Any, Any], None]) -> None:
        for unit in units:
            self.job.compute(unit, None)
            done(unit, None)


@dataclass(frozen=True, slots=True)
class _JobMaker:
    sample: Sample

    def __call__(self) -> _Job:
        set_up_memory()
        return _Job(self.sample)
