"""Executor with several processes on this host; in each, reading, computing and writing overlap.

A pickled function creates the job in each process; nothing else is shared.
"""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.jobs import TICK, Job, Session
from im2im_zoo.runtime.execute.executors.in_process import run_here

# The run fails if a unit's worker dies this many times.
_MAX_CRASHES = 3
# Units of a worker: one that it computes, and one that it reads meanwhile.
_UNITS_IN_HAND = 2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SHUTDOWN_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class LocalProcesses:
    """Run units in several processes of this host.

    Attributes:
        processes: number of processes.
        threads: of the numerical libraries in each (default: processors divided by processes).

    Example:
        >>> from im2im_zoo.runtime.execute.executors.process_pool import LocalProcesses
        >>> LocalProcesses(4).shares_memory
        False
    """

    processes: int
    threads: int | None = None

    @property
    def shares_memory(self) -> bool:
        """False, as each process creates its own job."""
        return False

    def start(self, make_job: Callable[[], Job[Any, Any, Any]]) -> AbstractContextManager[Session]:
        """Return a pool whose processes start with the first units and end with the `with` block."""
        return ProcessPool(make_job, self.processes, self.threads)


@dataclass
class _Worker:
    """A process, this end of its pipe, and its units."""

    process: Any
    pipe: Connection
    units: list[Any] = field(default_factory=list)
    ready: bool = False


@dataclass
class ProcessPool:
    """Worker processes that are kept between calls of `run`. If one dies, another runs its units again.

    Attributes:
        make_job: called once in each process; it must be picklable, as units must be.
        most: largest number of processes.
        threads: of the numerical libraries in each (default: processors divided by processes).
    """

    make_job: Callable[[], Any]
    most: int
    threads: int | None = None
    workers: list[_Worker] = field(default_factory=list, init=False)
    left: deque[Any] = field(default_factory=deque, init=False)
    crashes: dict[Any, int] = field(default_factory=dict, init=False)
    failed_starts: int = field(default=0, init=False)

    def __enter__(self) -> "ProcessPool":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            for worker in self.workers:
                with suppress(OSError):
                    worker.pipe.send(None)
            for worker in self.workers:
                worker.process.join(_SHUTDOWN_TIMEOUT_S)
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()

    def run(self, units: Iterable[Any], done: Callable[[Any, Any], None]) -> None:
        """Run units in any order; see `Session`.

        Raises:
            PlanError: workers die repeatedly.
            Exception: of a worker, the original one if it can be pickled.
        """
        self.left, self.crashes = deque(units), {}
        count = min(self.most, len(self.left))
        for worker in self.workers:
            self._assign(worker, _UNITS_IN_HAND)
        while self.left or any(w.units for w in self.workers):
            while len(self.workers) < count and self.left:
                self._start()
            for pipe in wait([w.pipe for w in self.workers], timeout=TICK):
                self._receive(next(w for w in self.workers if w.pipe is pipe), done)

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
        self._assign(worker, _UNITS_IN_HAND)

    def _assign(self, worker: _Worker, count: int = 1) -> None:
        for _ in range(min(count, len(self.left))):
            unit = self.left.popleft()
            worker.units.append(unit)
            with suppress(OSError):  # a dead worker is detected in `_receive`
                worker.pipe.send(unit)

    def _receive(self, worker: _Worker, done: Callable[[Any, Any], None]) -> None:
        try:
            kind, unit, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._remove_dead_worker(worker)
            return
        if kind == "ready":
            worker.ready, self.failed_starts = True, 0
        elif kind == "done":
            worker.units.remove(unit)
            self._assign(worker)
            done(unit, content)
        else:
            raise _to_exception(content)

    def _remove_dead_worker(self, worker: _Worker) -> None:
        worker.process.join(_SHUTDOWN_TIMEOUT_S)
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        self.workers.remove(worker)
        self.failed_starts += not worker.ready
        if self.failed_starts >= _MAX_CRASHES:
            raise PlanError(
                f"the worker processes end before they start work (exit code {worker.process.exitcode}); a script that uses workers must "
                "do so under `if __name__ == '__main__':`; if it does, the memory may not be enough: use fewer --workers"
            )
        for unit in worker.units:
            self.crashes[unit] = self.crashes.get(unit, 0) + worker.ready
            if self.crashes[unit] >= _MAX_CRASHES:
                raise PlanError(
                    f"tile {unit}: {_MAX_CRASHES} processes died while computing it (exit code {worker.process.exitcode}); the system may have "
                    "killed them because memory ran out: use fewer --workers, or less --memory"
                )
        self.left.extendleft(reversed(worker.units))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started in the `with` block."""
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
    """Run units from the pipe until it sends None or the parent dies."""
    # Ctrl-C reaches all processes of a terminal; only the parent handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = make_job()
        pipe.send(("ready", -1, None))
        run_here(job, _receive_units(pipe), lambda unit, report: pipe.send(("done", unit, report)))
    except (BrokenPipeError, ConnectionResetError):
        return
    except BaseException as error:  # noqa: BLE001 it is raised in the parent
        with suppress(OSError):
            pipe.send(("error", -1, _picklable(error)))


def _receive_units(pipe: Connection) -> Iterator[int]:
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


def _to_exception(content: BaseException | str) -> BaseException:
    return content if isinstance(content, BaseException) else PlanError(f"a worker process failed: {content}")
