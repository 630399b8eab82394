"""Steps of a grouping, each a function of one block, and who runs them. A step may use what those before it have left."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from im2im_zoo.runtime.allocator import set_up_memory
from im2im_zoo.runtime.blockwise.sample import Sample
from im2im_zoo.runtime.executors import run_here, run_in_processes


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

    def run(self, step: Step, sample: Sample) -> None:
        """Run what is left of a step.

        Raises:
            What a block raises.
        """
        left = [n for n in step.units if (step.name, n) not in self.done]

        def done(number: int, report: object) -> None:
            self.tell(step.name, number)

        if self.workers > 1 and len(left) > 1:
            maker = _JobMaker(step, sample)
            run_in_processes(maker, left, self.workers, done, threads=self.threads)
        else:
            run_here(_Job(step, sample), left, done, ahead=0)


@dataclass(frozen=True, slots=True)
class _Job:
    """All of a block in one stage, so that no more than one is in memory."""

    step: Step
    sample: Sample

    def read(self, unit: int) -> None:
        return None

    def compute(self, unit: int, data: None) -> None:
        self.step.do(self.sample, unit)

    def write(self, unit: int, data: None) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _JobMaker:
    step: Step
    sample: Sample

    def __call__(self) -> _Job:
        set_up_memory()
        return _Job(self.step, self.sample)
