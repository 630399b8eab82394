"""Jobs, stages and executors: the work on a unit, the units of a prediction, and what runs them.

Units are disjoint and repeatable: none needs the result of another, they run in any order and, after a crash, again. So every
executor gives the same bits, if the processes compute with the same number of threads (see `runtime.settings.Resources`).
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C", covariant=True)

TICK = 0.2
"""Seconds between two looks of a waiting loop, so that Ctrl-C is noticed."""


class Job(Protocol[A, B, C]):
    """Read, compute and write one unit. Each step may run in a thread of its own, but never twice at once.

    A job whose reading may take long can have a method `cancel` as well: called from another thread, it makes `read` raise.
    """

    def read(self, unit: Any) -> A:
        """Return the data to compute with."""

    def compute(self, unit: Any, data: A) -> B:
        """Return the result."""

    def write(self, unit: Any, data: B) -> C:
        """Write the result and return a small report that can be pickled."""


class Session(Protocol):
    """Workers that have made their job and run units until the session ends."""

    def run(self, units: Iterable[Any], done: Callable[[Any, Any], None]) -> None:
        """Run units in any order; call `done(unit, report)` in the calling thread for each that is written.

        Raises:
            Whatever a job raises first. `done` has then been called for every unit that was written.
        """


class Executor(Protocol):
    """A place where units run; any object with these three members is one.

    Attributes:
        processes: processes on this host that each hold a network; the memory projection counts them.
        shares_memory: whether jobs run in the calling process, and so may use its open network and outputs. Otherwise
            `make_job` is pickled and called in each worker.
    """

    @property
    def processes(self) -> int: ...

    @property
    def shares_memory(self) -> bool: ...

    def start(self, make_job: Callable[[], Job[Any, Any, Any]]) -> AbstractContextManager[Session]:
        """Return a session whose workers each call `make_job` once."""


def _itself(unit: int) -> Any:
    return unit


@dataclass(frozen=True, slots=True)
class Stage:
    """One kind of work of a prediction: tiles, finishing, instance segmentation, a step of it, resampling, delivery.

    Attributes:
        name: unique within the prediction, or within the sample for a step of instance segmentation.
        units: numbers of all its units.
        done: called with the number and the job's report for each unit that is written; it records the unit.
        finished: numbers that an earlier run has recorded; they are left out.
        item: returns what the job is given for a number; hashable. Default: the number.
    """

    name: str
    units: Sequence[int]
    done: Callable[[int, Any], None]
    finished: Collection[int] = ()
    item: Callable[[int], Any] = _itself

    def run(self, session: Session) -> None:
        """Run the units that are not finished.

        Raises:
            Whatever the job raises first.
        """
        left = [number for number in self.units if number not in self.finished]
        if not left:
            return
        if self.item is _itself:  # there may be millions of tiles
            session.run(left, self.done)
            return
        items = {self.item(number): number for number in left}
        session.run(items, lambda item, report: self.done(items[item], report))
