"""Walk units of work in several processes, each of which overlaps as `executors` does.

A job is made in each process by a function that is pickled; nothing else is shared. An executor for a cluster needs no more.
"""

import multiprocessing
import os
import pickle
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from im2im_zoo.core.errors import PlanError
from im2im_zoo.runtime.execute.executors.in_process import TICK, C, Job, run_here

# A unit that was in the hands of this many workers that died is not handed out again.
_DEATHS = 3
# Units that a worker has at a time: one that it computes, and one that it reads meanwhile.
_IN_HAND = 2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Seconds that a process has to end by itself.
_FAREWELL = 10


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
            for pipe in wait([w.pipe for w in self.workers], timeout=TICK):
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
