"""Kills a command at every change that it makes to the file system, runs it again, and compares what is there then.

A command runs in a fork of this process, which has imported everything. Its changes are counted by an audit hook: opening a
file for writing, renaming, creating and removing files and folders, and writes into files that stay open. Before change
number n the process ends by SIGKILL; then the same command runs to its end. What a power cut does is simulated by taking
away what the disk need not have kept:

    kill     the changes before number n are there, and no other: a killed process
    opened   and the file that change n opens is created, or emptied: killed before the first byte was written
    empty    a power cut: as `kill`, and all that was written since the last fsync of a file or `os.sync` is lost
    half     a power cut: as `empty`, but half of it is there
    twice    as `kill`, and the next run is killed as well, at a change chosen by n

Renames and removals are kept in their order, as journals of file systems keep them; the content of a file is kept only by
fsync or sync (the order of ext4 without delayed allocation's safeguards, and of xfs). The model does not take away renames,
which is the state before them, nor reorder them. Writes of processes other than the command's own are not counted.
"""

import json
import os
import random
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forks import start_fork

LOSSES = ("kill", "opened", "empty", "half", "twice")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_PATHS = {
    "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1, "os.rename": 2, "os.link": 2, "os.symlink": 2,
}  # fmt: skip
# Where the descriptors of folders are among the arguments, one a path.
_FOLDERS = {"os.mkdir": (2,), "os.remove": (1,), "os.rmdir": (1,), "os.rename": (2, 3)}

Command = Callable[[], None]
Snapshot = Mapping[str, Any]


@dataclass(frozen=True)
class Variant:
    """A command to kill.

    Attributes:
        name: of the variant.
        prepare: writes what is there before the command into a new folder.
        command: runs the command in the folder; exits with `SystemExit` or returns.
        results: the state of the results, by name; a result that is missing has none.
        final: the same at the end of the command, if there is more to compare.
        refuses: part of the message by which a complete result is refused that does not state its command.
        again: the command that goes on after a kill, if it is another one.
    """

    name: str
    prepare: Callable[[Path], None]
    command: Callable[[Path], None]
    results: Callable[[Path], dict[str, Snapshot]]
    final: Callable[[Path], dict[str, Snapshot]] | None = None
    refuses: str | None = None
    again: Callable[[Path], None] | None = None


@dataclass(frozen=True)
class Failure:
    """A kill after which something was lost."""

    variant: str
    loss: str
    point: int
    change: str
    problem: str


@dataclass
class Report:
    """The points of a variant at which it was killed, and what was lost."""

    variant: str
    changes: int = 0
    points: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass
class Changes:
    """Counter of changes below a folder, in the process of the command; kills the process at one of them."""

    root: str
    at: int
    loss: str
    log: int
    count: int = 0
    # Changes of several threads come one after another, so that none is made once the process is about to end.
    turn: threading.RLock = field(default_factory=threading.RLock)
    busy: bool = False
    # Bytes of a changed file that the disk has kept for sure, and positions that were written in place since.
    dirty: dict[str, int] = field(default_factory=dict)
    written: list[tuple[str, int, int]] = field(default_factory=list)

    def install(self) -> None:
        sys.addaudithook(self.heard)
        os.fsync, os.sync = self.fsync, self.sync

    def heard(self, event: str, found: tuple[Any, ...]) -> None:
        if event != "open" and event not in _PATHS:
            return
        if event == "open" and not (isinstance(found[2], int) and found[2] & _WRITING):
            return
        with self.turn:
            if self.busy:  # the counter's own
                return
            self.busy = True
            try:
                self._change(event, found)
            finally:
                self.busy = False

    def _change(self, event: str, found: tuple[Any, ...]) -> None:
        if event == "open":
            if isinstance(found[0], int):
                return
            paths = [os.path.abspath(os.fspath(found[0]))]
        else:
            folders = _FOLDERS.get(event, ())
            paths = [
                _absolute(p, found[folders[k]] if k < len(folders) and len(found) > folders[k] else -1)
                for k, p in enumerate(found[: _PATHS[event]])
            ]
        paths = [os.fsdecode(p) for p in paths]
        if not any(p.startswith(self.root) for p in paths):
            return
        if os.path.lexists(paths[0]) == (event == "os.mkdir") and event != "open":  # it will fail
            return
        self.step(f"{event} {' '.join(p.removeprefix(self.root) for p in paths)}", paths[0], event, found)
        self._note(event, paths, found)

    def step(self, change: str, path: str, event: str = "", found: tuple[Any, ...] = ()) -> None:
        """Count a change, and end the process if it is the last one; only in one's turn."""
        self.count += 1
        os.write(self.log, f"{change}\n".encode())
        if self.count != self.at:
            return
        self.busy = True
        if self.loss == "opened" and event == "open":
            with suppress(OSError):
                os.close(os.open(path, found[2], 0o666))
        if self.loss in ("empty", "half"):
            self._lose()
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, event: str, paths: Sequence[str], found: tuple[Any, ...]) -> None:
        if event == "open":
            there = 0 if found[2] & os.O_TRUNC or not os.path.exists(paths[0]) else os.path.getsize(paths[0])
            self.dirty.setdefault(paths[0], there)
            if found[2] & os.O_TRUNC:
                self.dirty[paths[0]] = 0
        elif event == "os.rename":
            source, target = paths
            self.dirty = {
                target + p[len(source) :] if _is_below(p, source) else p: kept
                for p, kept in self.dirty.items()
                if not _is_below(p, target) or _is_below(p, source)
            }
            self.written = [
                (target + p[len(source) :] if _is_below(p, source) else p, *rest) for p, *rest in self.written
            ]
        elif event == "os.remove":
            self.dirty.pop(paths[0], None)

    def fsync(self, handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        with self.turn:
            self.dirty.pop(path, None)
            self.written = [w for w in self.written if w[0] != path]

    def sync(self) -> None:
        with self.turn:
            self.dirty.clear()
            self.written.clear()

    def _lose(self) -> None:
        for path, kept in self.dirty.items():
            if not os.path.isfile(path):
                continue
            size = os.path.getsize(path)
            if size > kept:
                os.truncate(path, kept if self.loss == "empty" else (kept + size) // 2)
        for path, position, size in self.written:
            if os.path.isfile(path) and os.path.getsize(path) >= position + size:
                with open(path, "r+b") as file:
                    file.seek(position)
                    file.write(bytes(size if self.loss == "empty" else size // 2))


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _absolute(path: Any, folder: Any) -> str:
    name = os.fsdecode(os.fspath(path))
    if isinstance(folder, int) and folder >= 0 and not os.path.isabs(name):
        return os.path.join(os.readlink(f"/proc/self/fd/{folder}"), name)
    return os.path.abspath(name)


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code (negative: the signal), changes, and what it printed."""

    code: int
    changes: tuple[str, ...]
    text: str


def run_once(command: Command, folder: Path, *, at: int = 0, loss: str = "kill") -> Ended:
    """Run a command in a fork, killed at its change number `at` (0: never)."""
    log, text = folder.with_name(f"{folder.name}.changes"), folder.with_name(f"{folder.name}.text")
    changes = Changes(f"{folder}/", at, loss, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))

    def counted() -> None:
        count_writes_in_place(changes)
        count_exchanges(changes)
        changes.install()
        command()

    process = start_fork(counted, text)
    os.close(changes.log)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return Ended(code, tuple(log.read_text().splitlines()), text.read_text(errors="replace"))


def count_writes_in_place(changes: Changes) -> None:
    """Count the writes into files that stay open as changes; without an open they are not heard."""
    from im2im_zoo.images.flat_file import RegionFile

    write, write_at = RegionFile.write, RegionFile._write_at

    def write_region(self: Any, key: Any, block: Any) -> None:
        path = os.readlink(f"/proc/self/fd/{self._file.fileno()}")
        with changes.turn:
            changes.step(f"write {path.removeprefix(changes.root)}", path)
        write(self, key, block)

    def write_run(self: Any, position: int, run: Any) -> None:
        changes.written.append((os.readlink(f"/proc/self/fd/{self._file.fileno()}"), position, run.nbytes))
        write_at(self, position, run)

    RegionFile.write, RegionFile._write_at = write_region, write_run  # type: ignore[method-assign]


def count_exchanges(changes: Changes) -> None:
    """Count the swaps of two paths as changes; the system call is not heard."""
    from im2im_zoo.core import atomic

    exchange = atomic.exchange

    def counted(first: Path, second: Path) -> bool:
        one, two = os.path.abspath(first), os.path.abspath(second)
        with changes.turn:
            changes.step(f"exchange {one.removeprefix(changes.root)} {two.removeprefix(changes.root)}", one)
        done = exchange(first, second)
        if done:
            changes.dirty = {_swapped(p, one, two): kept for p, kept in changes.dirty.items()}
        return done

    atomic.exchange = counted


def _swapped(path: str, one: str, two: str) -> str:
    for source, target in ((one, two), (two, one)):
        if _is_below(path, source):
            return target + path[len(source) :]
    return path


def sweep(
    variant: Variant,
    folder: Path,
    *,
    losses: Iterable[str] = LOSSES,
    points: Callable[[Sequence[str]], Iterable[int]] = lambda changes: range(1, len(changes) + 1),
    told: Callable[[Failure], None] = lambda failure: None,
) -> Report:
    """Kill a variant at its changes, one after another, and run it again.

    Args:
        variant: the command.
        folder: new; the command runs in a folder in it.
        losses: what is lost at a kill, see above.
        points: chooses from the changes of an unbroken run those before which to kill, counted from 1.
        told: called with each failure as it is found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place, report = folder / "run", Report(variant.name)
    expected, changes, before = _unbroken(variant, place)
    report.changes = len(changes)
    for loss in losses:
        for point in points(changes):
            if loss == "opened" and not changes[point - 1].startswith("open "):
                continue
            report.points += 1
            change, problem = _kill_and_repeat(variant, place, point, loss, expected, before)
            if problem:
                failure = Failure(variant.name, loss, point, change, problem)
                report.failures.append(failure)
                told(failure)
    return report


State = tuple[dict[str, Snapshot], tuple[str, ...]]


def _unbroken(variant: Variant, place: Path) -> tuple[State, tuple[str, ...], dict[str, Snapshot]]:
    """Return what the command leaves, its changes, and the results that were there before."""
    _fresh(variant, place)
    before = variant.results(place)
    ended = run_once(lambda: variant.command(place), place)
    assert ended.code == 0, ended.text
    return ((variant.final or variant.results)(place), _names(place)), ended.changes, before


def _kill_and_repeat(
    variant: Variant, place: Path, point: int, loss: str, expected: State, before: dict[str, Snapshot]
) -> tuple[str, str]:
    """Return the change before which the command was killed, and what was lost by it, if anything."""
    _fresh(variant, place)
    killed = run_once(
        lambda: variant.command(place), place, at=point, loss="kill" if loss == "twice" else loss
    )
    if killed.code != -signal.SIGKILL:
        # The order of threads may have made one change less.
        return "", "" if killed.code == 0 else f"not killed, exit {killed.code}: {_end(killed.text)}"
    problem = _half_made(variant, place, expected[0], before)
    return killed.changes[-1], problem or _repeat(variant, place, point, loss, expected, before)


def _repeat(
    variant: Variant, place: Path, point: int, loss: str, expected: State, before: dict[str, Snapshot]
) -> str:
    """Run a killed command again, and return what was lost."""
    again = variant.again or variant.command
    if loss == "twice":
        second = random.Random(point).randrange(1, 60)
        killed = run_once(lambda: again(place), place, at=second)
        if problem := _half_made(variant, place, expected[0], before):
            return f"after a second kill before [{killed.changes[-1]}]: {problem}"
    ended = run_once(lambda: again(place), place)
    is_refused = variant.refuses is not None and variant.refuses in ended.text
    if ended.code != 0 and not is_refused:
        return f"the same command ends with {ended.code}: {_end(ended.text)}"
    found = (variant.final or variant.results)(place)
    if differing := [name for name in expected[0] if found.get(name) != expected[0][name]]:
        return f"another result: {', '.join(f'{n}: {_differences(found.get(n), expected[0][n])}' for n in differing)}"
    left = sorted(set(_names(place)) - set(expected[1]))
    return f"left behind: {', '.join(left)}" if left else ""


def _half_made(
    variant: Variant, place: Path, expected: Mapping[str, Snapshot], before: Mapping[str, Snapshot]
) -> str:
    """Return which result is neither the old one nor the new one after a kill."""
    try:
        found = variant.results(place)
    except Exception as error:  # noqa: BLE001 whatever cannot be read is not whole
        return f"a result cannot be read: {type(error).__name__}: {error}"
    for name in set(found) | set(before):
        if name in before and name not in found:
            return f"{name}: the old result is gone"
        if name in found and found[name] not in (expected.get(name), before.get(name)):
            return f"{name}: neither old nor new: {_differences(found[name], expected.get(name))}"
    return ""


def _fresh(variant: Variant, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    variant.prepare(place)


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(os.listdir(folder)))


def _differences(found: Any, expected: Any) -> str:
    if not isinstance(found, Mapping) or not isinstance(expected, Mapping):
        return "missing" if found is None else "other bytes"
    lost, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = sorted(k for k in set(found) & set(expected) if found[k] != expected[k])
    return f"lacks {lost[:4]}, has also {more[:4]}, differs in {other[:4]}"


def _end(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-4:])[-500:]


def state_of_image(path: Path) -> dict[str, Any]:
    """Return all of an image but for what differs between two runs: the memory that was measured, and times."""
    from im2im_zoo.images import open_image

    if path.is_file():
        image = open_image(path, axes="yx" if path.suffix == ".npy" else None)
        return {
            "voxels": image.to_numpy().tobytes(),
            "dims": image.dims,
            "sizes": str(image.attrs.get("pixel_size_um")),
        }
    return dict(_files_of(path))


def _files_of(folder: Path) -> Iterator[tuple[str, Any]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            name, content = str(file.relative_to(folder)), file.read_bytes()
            if file.name in ("zarr.json", ".zattrs"):
                found = json.loads(content)
                found.get("attributes", found).pop("im2im_zoo", None)
                yield name, found
            else:
                yield name, content
