"""Executor in this process: reading, computing and writing overlap in three threads."""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from im2im_zoo.core.jobs import TICK, A, B, C, Job, Session


@dataclass(frozen=True, slots=True)
class InProcess:
    """Run units in this process.

    Attributes:
        ahead: units that are read in advance; with 0, everything runs in the calling thread.

    Example:
        >>> from im2im_zoo.runtime.execute.executors.in_process import InProcess
        >>> InProcess().processes
        1
    """

    ahead: int = 1

    @property
    def processes(self) -> int:
        """Number of processes: 1."""
        return 1

    @property
    def shares_memory(self) -> bool:
        """True, as jobs run in this process."""
        return True

    def start(self, make_job: Callable[[], Job[Any, Any, Any]]) -> AbstractContextManager[Session]:
        """Create the job and return its session, which needs no closing."""
        return nullcontext(_InProcessSession(make_job(), self.ahead))


@dataclass(frozen=True, slots=True)
class _InProcessSession:
    job: Job[Any, Any, Any]
    ahead: int

    def run(self, units: Iterable[Any], done: Callable[[Any, Any], None]) -> None:
        run_here(self.job, units, done, ahead=self.ahead)


def run_here(
    job: Job[A, B, C], units: Iterable[Any], done: Callable[[Any, C], None], *, ahead: int = 1
) -> None:
    """Run units in this process: one is read while another is computed and a third is written.

    Args:
        job: reads, computes and writes a unit.
        units: in the order in which they run.
        done: called in the calling thread for each written unit, in that order; also for those written before an error.
        ahead: units that are read in advance; with 0, everything runs in the calling thread.

    Raises:
        Exception: the first one of the job or `done`, after the threads have ended.
    """
    if ahead < 1:
        for unit in units:
            done(unit, job.write(unit, job.compute(unit, job.read(unit))))
        return
    _Overlap(job, iter(units), done, ahead).run()


@dataclass
class _Overlap:
    """The threads of `run_here`, which send all events to the calling thread through one queue."""

    job: Job[Any, Any, Any]
    units: Iterator[Any]
    done: Callable[[Any, Any], None]
    ahead: int
    events: "queue.SimpleQueue[tuple[str, Any, Any]]" = field(default_factory=queue.SimpleQueue)
    results: "queue.SimpleQueue[tuple[Any, Any] | None]" = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_read = threading.Semaphore(self.ahead)
        self.may_write = threading.Semaphore(1)
        self.waiting: deque[tuple[Any, Any]] = deque()
        self.writing, self.more = 0, True
        self.waits_for_a_unit = False

    def run(self) -> None:
        reader, writer = (threading.Thread(target=t, daemon=True) for t in (self._read, self._write))
        reader.start()
        writer.start()
        try:
            while self.more or self.waiting or self.writing:
                if not self.waiting:
                    self._handle_next_event()
                    continue
                unit, data = self.waiting.popleft()
                self.may_read.release()
                result = self.job.compute(unit, data)
                del data
                while not self.may_write.acquire(timeout=TICK):
                    self._handle_pending_events()
                self.writing += 1
                self.results.put((unit, result))
                del result
                self._handle_pending_events()
        finally:
            self.stop.set()
            if self.more and (cancel := getattr(self.job, "cancel", None)) is not None:
                cancel()
            self.may_read.release()
            self.results.put(None)
            while writer.is_alive():
                writer.join(TICK)
            # The next unit may never arrive from its source; a unit that arrives now is not read.
            while reader.is_alive() and not self.waits_for_a_unit:
                reader.join(TICK)
            self._report_written_units()

    def _handle_next_event(self) -> None:
        with suppress(queue.Empty):
            self._handle(*self.events.get(timeout=TICK))

    def _handle_pending_events(self) -> None:
        while not self.events.empty():
            self._handle(*self.events.get())

    def _handle(self, kind: str, unit: Any, content: Any) -> None:
        if kind == "read":
            self.waiting.append((unit, content))
        elif kind == "written":
            self.writing -= 1
            self.done(unit, content)
        elif kind == "end":
            self.more = False
        else:
            raise content

    def _report_written_units(self) -> None:
        """Report units that were written before the error."""
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
