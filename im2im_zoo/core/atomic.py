"""Files and folders that appear at their path only when they are complete."""

import os
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
            _sync_tree(partial)
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
    else:
        # A folder cannot be replaced in one step: the old one steps aside, and back if the new one cannot come.
        old = aside or hidden_sibling(path, "replaced")
        path.replace(old)
        try:
            partial.replace(path)
        except BaseException:
            old.replace(path)
            raise
        shutil.rmtree(old)
    if durable:
        sync(path.parent)


def hidden_sibling(path: Path, word: str) -> Path:
    """Return a hidden path beside `path` that nobody else uses, on the same file system so that it can be renamed."""
    # The name of a file has at most 255 bytes; most of them are those of `path`.
    name = os.fsencode(path.name)[:_NAME_BYTES].decode(errors="ignore")
    return path.with_name(f".{name}.{word}-{os.getpid()}-{secrets.token_hex(3)}")


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


def _sync_tree(path: Path) -> None:
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
