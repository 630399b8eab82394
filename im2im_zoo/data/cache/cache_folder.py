"""A folder of preprocessed images that outlives a run: which files are in use, and which go when they are too many. Makes none."""

import os
import sys
import uuid
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from im2im_zoo.core.errors import DataError

_LEASES = "in_use"
_TURN = ".turn"


def user_folder() -> Path:
    """Where images are kept for the next time, of all recipes of this user."""
    return Path(platformdirs.user_cache_dir("im2im_zoo")) / "images"


class Lease:
    """Files of a cache that this process uses, so that no other removes them; it ends with the object, or the process.

    What processes that died have left half-written goes when it begins. Processes of several users can share a folder: nobody
    removes, or touches, what is another's.

    Args:
        folder: of the cache.
        limit: bytes that its files may take together.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._names: frozenset[str] = frozenset()
        with _writable(folder):
            leases = folder / _LEASES
            leases.mkdir(parents=True, exist_ok=True)
            self._path = leases / uuid.uuid4().hex
            self._handle = locked_file(self._path)
            self._end = weakref.finalize(self, _end, self._handle, self._path, os.getpid())
            remove_unfinished(folder)

    def use(self, files: Collection[Path]) -> None:
        """Use these files from now on, and no others: they are the newest, and the oldest of the rest go where there are too many.

        Files that are not there yet may be named, and are kept once they are.

        Raises:
            DataError: those that are in use take more than the limit.
        """
        with _writable(self._folder), _turn(self._folder):
            self._names = frozenset(file.name for file in files)
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            left = memoryview("\n".join(sorted(self._names)).encode())
            while left:
                left = left[os.write(self._handle, left) :]
            for file in files:
                with suppress(FileNotFoundError, PermissionError):  # not there yet, or another user's
                    os.utime(file)
            self._remove_oldest()

    def check(self, needed: int) -> None:
        """Refuse what would be too much before anything is made.

        Raises:
            DataError: files of so many bytes exceed the limit.
        """
        if needed > self._limit:
            raise DataError(self._too_much(needed))

    def end(self) -> None:
        """Let go of all files."""
        self._end()

    def _remove_oldest(self) -> None:
        in_use = self._names | _used_by_others(self._folder, self._path)
        found = []
        for file in self._folder.glob("*.npy"):
            with suppress(FileNotFoundError):  # a person was faster
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._limit:
                return
            if file.name not in in_use:
                with suppress(PermissionError):
                    file.unlink(missing_ok=True)
                    total -= size
        if total > self._limit:
            raise DataError(self._too_much(total))

    def _too_much(self, total: int) -> str:
        return (
            f"data.cache_gb: the images that are in use take {total / 1e9:.2f} GB of {self._folder}, and only "
            f"{self._limit / 1e9:g} GB are allowed; make it larger, or keep fewer images there at a time (data.loaded)"
        )


def locked_file(path: Path) -> int:
    """A new file that its process has locked before anybody sees it; returns its handle."""
    if sys.platform == "win32":  # an open file cannot be renamed
        return os.open(path, os.O_RDWR | os.O_CREAT)
    hidden = path.with_name(f".{path.name}")
    handle = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o644)
    _lock(handle)
    hidden.rename(path)
    return handle


def is_abandoned(path: Path) -> bool:
    """Whether a file that was made by `locked_file` is there and nobody has it locked any more."""
    try:
        handle = _open(path)
    except OSError:
        return False
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove what processes that died have begun to write."""
    for file in folder.glob("*.partial"):
        if not file.name.startswith(".") and is_abandoned(file):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _end(handle: int, path: Path, process: int) -> None:
    # A forked worker inherits the finalizer, but not the lease.
    if os.getpid() == process:
        os.close(handle)
        path.unlink(missing_ok=True)


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"data.cache: {folder} may not be written to ({error.strerror}); give another folder"
        ) from error


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """One process at a time, so that none reads the names that another is just writing."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = _open(folder / _TURN, os.O_CREAT)
    try:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _used_by_others(folder: Path, own: Path) -> frozenset[str]:
    """Names of files that living processes use; what dead ones have left is removed."""
    names: set[str] = set()
    for path in (folder / _LEASES).iterdir():
        if path == own or path.name.startswith("."):
            continue
        if is_abandoned(path):
            with suppress(OSError):
                path.unlink(missing_ok=True)
        else:
            with suppress(FileNotFoundError):
                names.update(path.read_text(encoding="utf-8").splitlines())
    return frozenset(names)


def _open(path: Path, flags: int = 0) -> int:
    """A handle by which a file can be locked: on network disks it has to be one for writing, which others' files do not give."""
    try:
        return os.open(path, os.O_RDWR | flags, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _lock(handle: int) -> bool:
    """Lock an open file, if nobody else has; where the system knows no such locks, a file in use cannot be removed either."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
