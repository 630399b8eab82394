"""Files and folders that appear at their path only when they are complete, and the hidden ones that killed processes leave."""

import ctypes
import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from im2im_zoo.core.finite_json import to_json

# Bytes of a name that are kept in that of its hidden sibling.
_NAME_BYTES = 200
# Names of `hidden_sibling`, and those that `remove_folder` gives, which keep their ending.
_HIDDEN = re.compile(r"\.(?P<name>.+)\.(partial|replaced)-(?P<process>\d+)-[0-9a-f]{6}")
_REMOVED = re.compile(r"\.removed-(?P<process>\d+)-[0-9a-f]{6}\.(?P<name>.+)")
# `renameat2` of Linux, `renamex_np` of macOS: relative paths start at the working directory, and two names swap.
_AT_FDCWD, _RENAME_EXCHANGE, _RENAME_SWAP = -100, 2, 2


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Write a file in one step: readers find the old content or the new, never a part of it.

    Args:
        path: the file; its folder must exist.
        content: all of it.
        durable: return only when a power cut cannot undo it.

    Raises:
        OSError: the file cannot be written; what was there before is kept.
    """
    with atomic_file(path, durable=durable) as file:
        file.write(content)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, content: object, *, durable: bool = False, **options: Any) -> None:
    """Write JSON without NaN and Infinity and a line end, as `write_bytes` does; `options` are those of `to_json`."""
    write_text(path, to_json(content, **options) + "\n", durable=durable)


def cache_json(path: Path, content: object) -> None:
    """Write JSON and its folder, as `write_json` does; do nothing if they are not writable."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content)


@contextmanager
def atomic_output(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a hidden sibling of `path` for a new file or folder, and move it to `path` if the block succeeds.

    Args:
        path: where the output appears; what is there is replaced.
        durable: whatever is found at `path`, even after a power cut, is complete.
    """
    partial = hidden_sibling(path, "partial")
    try:
        yield partial
        if durable:
            sync_tree(partial)
        move_into_place(partial, path, durable=durable)
    except BaseException:
        discard(partial)
        raise


@contextmanager
def atomic_file(path: Path, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """Yield a new, open file that appears at `path` if the block succeeds, as `atomic_output` does."""
    with atomic_output(path, durable=durable) as partial, partial.open("wb") as file:
        yield file


def append(path: Path, content: bytes) -> None:
    """Append to a file, or create it; return when a power cut cannot undo it."""
    with path.open("ab") as file:
        file.write(content)
    sync(path)


def move_into_place(partial: Path, path: Path, *, durable: bool = False, aside: Path | None = None) -> None:
    """Move a complete file or folder to its path, in place of what is there.

    Args:
        partial: the output, on the same file system as `path`.
        path: where it appears.
        durable: return only when a power cut cannot undo the move. The output itself must be on the disk before.
        aside: where a replaced folder waits until the new one is there; default a hidden sibling.

    Raises:
        OSError: the output cannot be moved; what was at `path` is kept.
    """
    if not partial.is_dir() or not path.exists():
        partial.replace(path)
        old = None
    else:
        old = aside or hidden_sibling(path, "replaced")
        swapped = exchange(partial, path)
        try:
            # Otherwise in two steps: the old folder steps aside, and back if the new one cannot come.
            (partial if swapped else path).replace(old)
            if not swapped:
                partial.replace(path)
        except BaseException:
            if swapped:
                exchange(partial, path)
            elif old.exists():
                old.replace(path)
            raise
    if durable:
        sync(path.parent)
    if old is not None:
        shutil.rmtree(old)


def exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step, so that both exist at any moment; return False where the system or the disk cannot."""
    if sys.platform == "win32":
        return False
    system, paths = ctypes.CDLL(None), (os.fsencode(first), os.fsencode(second))
    if hasattr(system, "renameat2"):
        done = system.renameat2(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE)
    elif hasattr(system, "renamex_np"):
        done = system.renamex_np(*paths, _RENAME_SWAP)
    else:
        return False
    return bool(done == 0)


def remove_folder(path: Path) -> None:
    """Remove a folder in one step: after a kill it is there whole, or only a hidden sibling of it is left."""
    if path.exists():
        old = path.with_name(f".removed-{os.getpid()}-{secrets.token_hex(3)}.{_end_of(path.name)}")
        path.replace(old)
        shutil.rmtree(old, ignore_errors=True)


def find_leftovers(path: Path) -> list[Path]:
    """Return the hidden siblings of a path that killed processes have left: none of a process that runs on this machine."""
    return [p for p in find_leftovers_in(path.parent) if _belongs(p, path.name)]


def find_leftovers_in(folder: Path) -> list[Path]:
    """Return the hidden files and folders in a folder that killed processes have left, whatever they belong to."""
    import psutil

    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        named = _match(path)
        if named and (int(named["process"]) == os.getpid() or not psutil.pid_exists(int(named["process"]))):
            found.append(path)
    return sorted(found)


def remove_leftovers(path: Path, beside: Path | None = None) -> None:
    """Remove what killed processes have left beside a path; put back what they were about to replace, if nothing is there.

    Args:
        path: a file or folder. Nobody may be writing it.
        beside: the path whose hidden siblings they are, if it is another one.
    """
    for left in find_leftovers(beside or path):
        if ".replaced-" in left.name and not path.exists():
            left.replace(path)
        else:
            discard(left)


def remove_leftovers_in(folder: Path) -> None:
    """Remove the hidden files and folders in a folder that killed processes have left."""
    for path in find_leftovers_in(folder):
        discard(path)


def is_hidden(path: Path) -> bool:
    """Return whether a path has the name of a hidden sibling, of a running process or not."""
    return _match(path) is not None


def _belongs(hidden: Path, name: str) -> bool:
    """Return whether a hidden sibling is one of a path of some name."""
    if named := _HIDDEN.fullmatch(hidden.name):
        return named["name"] == _start_of(name)
    named = _REMOVED.fullmatch(hidden.name)
    return named is not None and named["name"] == _end_of(name)


def _start_of(name: str) -> str:
    """Return the part of a name that its hidden sibling keeps: the name of a file has at most 255 bytes."""
    return os.fsencode(name)[:_NAME_BYTES].decode(errors="ignore")


def _end_of(name: str) -> str:
    return os.fsencode(name)[-_NAME_BYTES:].decode(errors="ignore")


def _match(path: Path) -> re.Match[str] | None:
    return _HIDDEN.fullmatch(path.name) or _REMOVED.fullmatch(path.name)


def file_identity(path: Path) -> list[int]:
    """Return numbers that a file or folder keeps when it is renamed, and that no other has, also not one with a reused inode.

    They are the inodes and times of a file, or of the files in a folder; folders within may come and go.
    """
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    found = [file.stat() for file in files]
    return [path.stat().st_ino, *(number for one in found for number in (one.st_ino, one.st_mtime_ns))]


def hidden_sibling(path: Path, word: str) -> Path:
    """Return a hidden path beside `path` that nobody else uses, on the same file system so that it can be renamed."""
    return path.with_name(f".{_start_of(path.name)}.{word}-{os.getpid()}-{secrets.token_hex(3)}")


def discard(partial: Path) -> None:
    """Remove a file or folder that is not complete."""
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


def sync_everything() -> None:
    """Flush all that the system holds to the disks. Windows has no such call."""
    if hasattr(os, "sync"):
        os.sync()


def sync_tree(path: Path) -> None:
    """Flush a file, or all of a folder, to the disk."""
    for folder, _, files in os.walk(path):
        for file in files:
            sync(Path(folder, file))
        sync(Path(folder))
    if path.is_file():
        sync(path)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk; on Windows, where a folder cannot be opened, only a file."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
