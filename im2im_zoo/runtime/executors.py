"""Walk units of work: in this process, with reading, computing and writing overlapped, or in several processes.

What is done with a unit is the job's matter (`Job`). Units are disjoint: none needs what another has made, they may be run in
any order and, after a crash, again. A job for another process is made there, by a function that is pickled; nothing else is
shared. An executor for a cluster needs no more than that.
"""

import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol, TypeVar

from im2im_zoo.errors import PlanError

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C", covariant=True)

# A unit that was in the hands of this many workers that died is not handed out again.
_DEATHS = 3
# Units that a worker has at a time: one that it computes, and one that it reads meanwhile.
_IN_HAND = 2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_TICK = 0.2
# Seconds that a process has to end by itself.
_FAREWELL = 10


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
                while not self.may_write.acquire(timeout=_TICK):
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
                writer.join(_TICK)
            # Units may come from elsewhere, and the next one never: a unit that comes now is not read.
            while reader.is_alive() and not self.waits_for_a_unit:
                reader.join(_TICK)
            self._report_the_rest()

    def _event(self) -> None:
        with suppress(queue.Empty):
            self._handle(*self.events.get(timeout=_TICK))

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


def run_in_processes(
    make_job: Callable[[], Job[Any, Any, C]],
    units: Iterable[int],
    workers: int,
    done: Callable[[int, C], None],
    *,
    threads: int | None = None,
) -> None:
    """Run units in several processes. One that dies costs only its units: they are run again by another.

    Args:
        make_job: called once in each process; it is pickled.
        units: their numbers.
        workers: processes.
        done: called in this process for each unit that is written, in any order.
        threads: of the numerical libraries in each process (default: the processors, divided by the workers).

    Raises:
        PlanError: units whose workers die again and again.
        What a worker raises, as it was raised there if it can be pickled.
    """
    with Crew(make_job, workers, threads) as crew:
        crew.run(units, done)


@dataclass
class _Worker:
    """A process, the end of its pipe, and the units that it has."""

    process: Any
    pipe: Connection
    units: list[Any] = field(default_factory=list)
    ready: bool = False


@dataclass
class Crew:
    """Processes that stay from one call of `run` to the next, and end with the `with` block. They are started when there is work.

    Attributes:
        make_job: gives a `Job`, whose units may be anything that can be pickled; called once in each process, and pickled.
        most: processes.
        threads: of the numerical libraries in each (default: the processors, divided by the processes).
    """

    make_job: Callable[[], Any]
    most: int
    threads: int | None = None
    workers: list[_Worker] = field(default_factory=list, init=False)
    left: deque[Any] = field(default_factory=deque, init=False)
    deaths: dict[Any, int] = field(default_factory=dict, init=False)
    stillborn: int = field(default=0, init=False)

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for worker in self.workers:
                with suppress(OSError):
                    worker.pipe.send(None)
            for worker in self.workers:
                worker.process.join(_FAREWELL)
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def run(self, units: Iterable[Any], done: Callable[[Any, Any], None]) -> None:
        """Run units; see `run_in_processes`."""
        self.left, self.deaths = deque(units), {}
        count = min(self.most, len(self.left))
        for worker in self.workers:
            self._hand_out(worker, _IN_HAND)
        while self.left or any(w.units for w in self.workers):
            while len(self.workers) < count and self.left:
                self._start()
            for pipe in wait([w.pipe for w in self.workers], timeout=_TICK):
                self._hear(next(w for w in self.workers if w.pipe is pipe), done)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, self.make_job), daemon=True)
        threads = self.threads or max(1, (os.cpu_count() or 1) // self.most)
        with _environment({name: str(threads) for name in _THREADS}):
            process.start()
        theirs.close()
        worker = _Worker(process, mine)
        self.workers.append(worker)
        self._hand_out(worker, _IN_HAND)

    def _hand_out(self, worker: _Worker, count: int = 1) -> None:
        for _ in range(min(count, len(self.left))):
            unit = self.left.popleft()
            worker.units.append(unit)
            with suppress(OSError):  # it has died: `_hear` finds out
                worker.pipe.send(unit)

    def _hear(self, worker: _Worker, done: Callable[[Any, Any], None]) -> None:
        try:
            kind, unit, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if kind == "ready":
            worker.ready, self.stillborn = True, 0
        elif kind == "done":
            worker.units.remove(unit)
            self._hand_out(worker)
            done(unit, content)
        else:
            raise _raised(content)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join(_FAREWELL)
        worker.process.kill()  # it hears nothing any more
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        self.stillborn += not worker.ready
        if self.stillborn >= _DEATHS:
            raise PlanError(
                f"the worker processes end before they begin (exit code {worker.process.exitcode}): a script that uses workers has "
                "to do so under `if __name__ == '__main__':`; or the memory does not suffice: use fewer --workers"
            )
        for unit in worker.units:
            self.deaths[unit] = self.deaths.get(unit, 0) + worker.ready
            if self.deaths[unit] >= _DEATHS:
                raise PlanError(
                    f"tile {unit}: {_DEATHS} processes that had it in hand died (exit code {worker.process.exitcode}); perhaps the system "
                    "killed them for their memory: use fewer --workers, or less --memory"
                )
        self.left.extendleft(reversed(worker.units))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables that a process takes over when it is started."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(pipe: Connection, make_job: Callable[[], Job[Any, Any, Any]]) -> None:
    """The life of a worker. It ends when it is told to, or when the pipe is closed because its parent has died."""
    # Ctrl-C reaches all processes of a terminal; what becomes of the workers is the parent's matter.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = make_job()
        pipe.send(("ready", -1, None))
        run_here(job, _received(pipe), lambda unit, report: pipe.send(("done", unit, report)))
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:  # noqa: BLE001 it is raised in the parent
        with suppress(OSError):
            pipe.send(("error", -1, _picklable(error)))


def _received(pipe: Connection) -> Iterator[int]:
    with suppress(EOFError, OSError):
        while (unit := pipe.recv()) is not None:
            yield unit


def _picklable(error: BaseException) -> BaseException | str:
    text = f"{type(error).__name__}: {error}"
    try:
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 what was pickled a moment ago
    except Exception:  # noqa: BLE001 an exception's own code may raise anything
        return text
    return error if str(again) == str(error) else text


def _raised(content: BaseException | str) -> BaseException:
    return content if isinstance(content, BaseException) else PlanError(f"a worker process failed: {content}")
