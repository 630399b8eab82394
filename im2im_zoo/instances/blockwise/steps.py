"""Steps of a grouping, each a function of one block, and who runs them. A step may use what those before it have left."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from im2im_zoo.core.allocator import set_up_memory
from im2im_zoo.instances.blockwise.sample import Sample
from im2im_zoo.runtime.execute.executors.process_pool import Crew


@dataclass(frozen=True, slots=True)
class Step:
    """The same thing for many blocks, in any order, and again if need be.

    Attributes:
        name: one word; no two steps of a grouping share it.
        units: the numbers of the blocks.
        do: of the sample and a number; a function of a module, as it is sent to other processes.
    """

    name: str
    units: Sequence[int]
    do: Callable[[Sample, int], Any]


@dataclass(frozen=True, slots=True)
class Walker:
    """Runs steps, and leaves out what is done.

    Attributes:
        done: name and number of what an earlier run has done.
        tell: called with both for what is done now, in this thread.
        workers: processes; `threads` is of each.
    """

    done: Collection[tuple[str, int]]
    tell: Callable[[str, int], None]
    workers: int = 1
    threads: int | None = None

    @contextmanager
    def at_work(self, sample: Sample) -> Iterator[Callable[[Step], None]]:
        """A function that runs what is left of a step of a sample, and raises what a block raises. Processes stay for all steps."""
        with Crew(_JobMaker(sample), self.workers, self.threads) as crew:
            yield partial(self._run, sample, crew)

    def _run(self, sample: Sample, crew: Crew, step: Step) -> None:
        left = [_Unit(step.do, n) for n in step.units if (step.name, n) not in self.done]

        def done(unit: _Unit, report: object) -> None:
            self.tell(step.name, unit.number)

        if self.workers > 1 and len(left) > 1:
            crew.run(left, done)
        else:
            for unit in left:
                unit.do(sample, unit.number)
                done(unit, None)


@dataclass(frozen=True, slots=True)
class _Unit:
    """A block of a step, as it is sent to another process and back."""

    do: Callable[[Sample, int], Any] = field(compare=False)
    number: int

    def __str__(self) -> str:
        return str(self.number)


@dataclass(frozen=True, slots=True)
class _Job:
    """All of a block in one stage, so that no more than one is in memory."""

    sample: Sample

    def read(self, unit: _Unit) -> None:
        return None

    def compute(self, unit: _Unit, data: None) -> None:
        unit.do(self.sample, unit.number)

    def write(self, unit: _Unit, data: None) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _JobMaker:
    sample: Sample

    def __call__(self) -> _Job:
        set_up_memory()
        return _Job(self.sample)
