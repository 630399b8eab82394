"""A folder of preprocessed images that outlives a run: which files are in use, and which go when they are too many. Makes none."""

import os
import sys
import uuid
import weakref
from collections.abc import Collection
from pathlib import Path

import platformdirs

from im2im_zoo.errors import DataError

_LEASES = "in_use"


def user_folder() -> Path:
    """Where images are kept for the next time, of all recipes of this user."""
    return Path(platformdirs.user_cache_dir("im2im_zoo")) / "images"


class Lease:
    """Files of a cache that this process uses, so that no other removes them; it ends with the object, or the process.

    Args:
        folder: of the cache.
        limit: bytes that its files may take together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._names: frozenset[str] = frozenset()
        leases = folder / _LEASES
        leases.mkdir(parents=True, exist_ok=True)
        self._path = leases / uuid.uuid4().hex
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        _lock(handle)
        self._handle = handle
        self._end = weakref.finalize(self, _end, handle, self._path, os.getpid())

    def use(self, files: Collection[Path]) -> None:
        """Use these files from now on, and no others: they are the newest, and the oldest of the rest go where there are too many.

        Files that are not there yet may be named, and are kept once they are.

        Raises:
            DataError: those that are in use take more than the limit.
        """
        self._names = frozenset(file.name for file in files)
        os.ftruncate(self._handle, 0)
        os.lseek(self._handle, 0, os.SEEK_SET)
        os.write(self._handle, "\n".join(sorted(self._names)).encode())
        for file in files:
            if file.exists():
                os.utime(file)
        self._remove_oldest()

    def end(self) -> None:
        """Let go of all files."""
        self._end()

    def _remove_oldest(self) -> None:
        in_use = self._names | _used_by_others(self._folder, self._path)
        found = []
        for file in self._folder.glob("*.npy"):
            try:
                found.append((file.stat().st_mtime_ns, file.stat().st_size, file))
            except FileNotFoundError:  # another process was faster
                continue
        total = sum(size for _, size, _ in found)
        for _, size, file in sorted(found):
            if total <= self._limit:
                return
            if file.name not in in_use:
                file.unlink(missing_ok=True)
                total -= size
        if total > self._limit:
            raise DataError(
                f"data.cache_gb: the images that are in use take {total / 1e9:.2f} GB of {self._folder}, and only "
                f"{self._limit / 1e9:g} GB are allowed; make it larger, or keep fewer images there at a time (data.loaded)"
            )


def _end(handle: int, path: Path, process: int) -> None:
    # A forked worker inherits the finalizer, but not the lease.
    if os.getpid() == process:
        os.close(handle)
        path.unlink(missing_ok=True)


def _used_by_others(folder: Path, own: Path) -> frozenset[str]:
    """Names of files that living processes use; what dead ones have left is removed."""
    names: set[str] = set()
    for path in (folder / _LEASES).iterdir():
        if path == own:
            continue
        try:
            with path.open("r+", encoding="utf-8") as file:
                if _lock(file.fileno()):
                    path.unlink(missing_ok=True)
                else:
                    names.update(file.read().splitlines())
        except FileNotFoundError:
            continue
    return frozenset(names)


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
