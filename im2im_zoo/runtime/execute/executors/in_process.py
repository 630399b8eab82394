"""Walk units of work in this process, with reading, computing and writing overlapped; `crew` does in several processes.

What is done with a unit is the job's matter (`Job`). Units are disjoint: none needs what another has made, they may be run in
any order and, after a crash, again.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C", covariant=True)

TICK = 0.2
"""Seconds after which who waits looks about, so that Ctrl-C is heard."""


class Job(Protocol[A, B, C]):
    """What is done with a unit, in three stages, which may each run in a thread of its own; a stage never runs twice at once."""

    def read(self, unit: int) -> A:
        """Get what is computed with."""
        ...

    def compute(self, unit: int, data: A) -> B:
        """Run the network."""
        ...

    def write(self, unit: int, data: B) -> C:
        """Put the result where it belongs; returns a small report that can be pickled."""
        ...


def run_here(
    job: Job[A, B, C], units: Iterable[int], done: Callable[[int, C], None], *, ahead: int = 1
) -> None:
    """Run units in this process. One is read while another is computed and a third is written.

    Args:
        job: whose units.
        units: their numbers, in the order in which they are run.
        done: called in the calling thread for each unit that is written, in that order; also for those that were written
            before something went wrong.
        ahead: units that are read before they are computed; 0: everything happens in the calling thread.

    Raises:
        Whatever a stage or `done` raises first, after the threads have ended.
    """
    if ahead < 1:
        for unit in units:
            done(unit, job.write(unit, job.compute(unit, job.read(unit))))
        return
    _Overlap(job, iter(units), done, ahead).run()


@dataclass
class _Overlap:
    """The threads of `run_here`: all that happens is told to the calling thread through one queue."""

    job: Job[Any, Any, Any]
    units: Iterator[int]
    done: Callable[[int, Any], None]
    ahead: int
    events: "queue.SimpleQueue[tuple[str, int, Any]]" = field(default_factory=queue.SimpleQueue)
    results: "queue.SimpleQueue[tuple[int, Any] | None]" = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_read = threading.Semaphore(self.ahead)
        self.may_write = threading.Semaphore(1)
        self.waiting: deque[tuple[int, Any]] = deque()
        self.writing, self.more = 0, True
        self.waits_for_a_unit = False

    def run(self) -> None:
        reader, writer = (threading.Thread(target=t, daemon=True) for t in (self._read, self._write))
        reader.start()
        writer.start()
        try:
            while self.more or self.waiting or self.writing:
                if not self.waiting:
                    self._event()
                    continue
                unit, data = self.waiting.popleft()
                self.may_read.release()
                result = self.job.compute(unit, data)
                del data
                while not self.may_write.acquire(timeout=TICK):
                    self._events_so_far()
                self.writing += 1
                self.results.put((unit, result))
                del result
                self._events_so_far()
        finally:
            self.stop.set()
            self.may_read.release()
            self.results.put(None)
            while writer.is_alive():
                writer.join(TICK)
            # Units may come from elsewhere, and the next one never: a unit that comes now is not read.
            while reader.is_alive() and not self.waits_for_a_unit:
                reader.join(TICK)
            self._report_the_rest()

    def _event(self) -> None:
        with suppress(queue.Empty):
            self._handle(*self.events.get(timeout=TICK))

    def _events_so_far(self) -> None:
        while not self.events.empty():
            self._handle(*self.events.get())

    def _handle(self, kind: str, unit: int, content: Any) -> None:
        if kind == "read":
            self.waiting.append((unit, content))
        elif kind == "written":
            self.writing -= 1
            self.done(unit, content)
        elif kind == "end":
            self.more = False
        else:
            raise content

    def _report_the_rest(self) -> None:
        """Units that were written while something else went wrong are done all the same."""
        while not self.events.empty():
            kind, unit, content = self.events.get()
            if kind == "written":
                self.done(unit, content)

    def _read(self) -> None:
        try:
            while True:
                self.may_read.acquire()
                self.waits_for_a_unit = True
                unit = None if self.stop.is_set() else next(self.units, None)
                self.waits_for_a_unit = False
                if unit is None or self.stop.is_set():
                    break
                self.events.put(("read", unit, self.job.read(unit)))
            self.events.put(("end", -1, None))
        except BaseException as error:  # noqa: BLE001 it is raised in the calling thread
            self.events.put(("error", -1, error))

    def _write(self) -> None:
        try:
            while (item := self.results.get()) is not None:
                unit, data = item
                del item
                report = self.job.write(unit, data)
                del data
                self.may_write.release()
                self.events.put(("written", unit, report))
        except BaseException as error:  # noqa: BLE001 it is raised in the calling thread
            self.events.put(("error", -1, error))
            self.may_write.release()
