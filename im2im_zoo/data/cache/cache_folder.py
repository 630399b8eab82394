"""Folders of preprocessed images: a kept one, shared by processes, with a size limit and leases; and a temporary one."""

import os
import platform
import re
import shutil
import sys
import tempfile
import uuid
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from im2im_zoo.core.errors import DataError

_LEASES = "in_use"
_TURN = ".turn"
_OWNER = "owner"
# Names of a cache's own files (the SHA-256 of what was preprocessed). A recipe can name any folder, so no other file is removed.
_IMAGE = re.compile(r"[0-9a-f]{64}\.npy")
_UNFINISHED = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.partial")


def find_user_folder() -> Path:
    """Return the folder that keeps images for later runs of all recipes of this user."""
    return Path(platformdirs.user_cache_dir("im2im_zoo")) / "images"


def make_temporary_folder() -> tuple[Path, int]:
    """Create a folder below `TMPDIR`, and remove those of killed processes of this machine and user.

    Returns:
        The folder, and the handle of a file in it that has to stay open while the folder is used.
    """
    # On disks shared by several machines, locks may hold on one machine only.
    prefix = f"im2im_zoo_{re.sub('[^A-Za-z0-9]', '', platform.node())}_"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if is_abandoned(left / _OWNER) and _is_own(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    return folder, create_locked_file(folder / _OWNER)


class Lease:
    """Lease on files of a cache, which no other process may remove; it ends with the object, or the process.

    A new lease removes partly written files of dead processes. Users can share a folder: no process removes or touches
    another user's files.

    Args:
        folder: of the cache.
        limit: largest total size of its files, in bytes.

    Raises:
        DataError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._names: frozenset[str] = frozenset()
        with _explain_unwritable(folder):
            leases = folder / _LEASES
            leases.mkdir(parents=True, exist_ok=True)
            self._path = leases / uuid.uuid4().hex
            self._handle = create_locked_file(self._path)
            self._release = weakref.finalize(self, _release, self._handle, self._path, os.getpid())
            remove_unfinished(folder)

    def use(self, files: Collection[Path]) -> None:
        """Lease these files instead of all earlier ones, and remove the least recently used others above the size limit.

        Args:
            files: may include files that do not exist yet.

        Raises:
            DataError: the leased files exceed the limit.
        """
        with _explain_unwritable(self._folder), _hold_turn(self._folder):
            self._names = frozenset(file.name for file in files)
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            left = memoryview("\n".join(sorted(self._names)).encode())
            while left:
                left = left[os.write(self._handle, left) :]
            for file in files:
                with suppress(FileNotFoundError, PermissionError):  # not written yet, or another user's
                    os.utime(file)
            self._remove_oldest()

    def check(self, needed: int) -> None:
        """Check that files fit the limit before any is written.

        Args:
            needed: their size in bytes.

        Raises:
            DataError: they exceed the limit.
        """
        if needed > self._limit:
            raise DataError(self._explain_limit(needed))

    def release(self) -> None:
        """Release all files."""
        self._release()

    def _remove_oldest(self) -> None:
        in_use = self._names | _list_used_by_others(self._folder, self._path)
        found = []
        for file in self._folder.glob("*.npy"):
            if not _IMAGE.fullmatch(file.name):
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
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
            raise DataError(self._explain_limit(total))

    def _explain_limit(self, total: int) -> str:
        return (
            f"data.cache_gb: the images in use need {total / 1e9:.2f} GB in {self._folder}, but only "
            f"{self._limit / 1e9:g} GB are allowed; make it larger, or cache fewer images at a time (data.loaded)"
        )


def create_locked_file(path: Path) -> int:
    """Create a file that is locked before other processes see it; return its handle."""
    if sys.platform == "win32":  # an open file cannot be renamed
        return os.open(path, os.O_RDWR | os.O_CREAT)
    hidden = path.with_name(f".{path.name}")
    handle = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o644)
    _lock(handle)
    hidden.rename(path)
    return handle


def is_abandoned(path: Path) -> bool:
    """Whether a file made by `create_locked_file` exists and is not locked any more."""
    try:
        handle = _open(path)
    except OSError:
        return False
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def remove_unfinished(folder: Path) -> None:
    """Remove partly written files of dead processes."""
    for file in folder.glob("*.partial"):
        if _UNFINISHED.fullmatch(file.name) and is_abandoned(file):
            with suppress(OSError):
                file.unlink(missing_ok=True)


def _release(handle: int, path: Path, process: int) -> None:
    # A forked worker inherits the finalizer, but not the lease.
    if os.getpid() == process:
        os.close(handle)
        path.unlink(missing_ok=True)


@contextmanager
def _explain_unwritable(folder: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"data.cache: {folder} cannot be written to ({error.strerror}); give another folder"
        ) from error


@contextmanager
def _hold_turn(folder: Path) -> Iterator[None]:
    """Wait for this process's turn, so that none reads names while another writes them."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = _open(folder / _TURN, os.O_CREAT)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _list_used_by_others(folder: Path, own: Path) -> frozenset[str]:
    """Return the names of files that living processes lease; remove the leases of dead ones."""
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
    """Open a file so that it can be locked: for writing, as network disks need, or for reading if it is another user's."""
    try:
        return os.open(path, os.O_RDWR | flags, 0o644)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _lock(handle: int) -> bool:
    """Lock an open file and return whether that worked; on Windows, without such locks, files in use cannot be removed."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_own(folder: Path) -> bool:
    try:
        return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
    except FileNotFoundError:  # its process has removed it meanwhile
        return False
