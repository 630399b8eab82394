"""Lock of an output: one run at a time writes it, on whatever process or host it runs.

    result.ome.zarr.incomplete.lock     held by the running process, removed at its end

The file lies beside the folder of the partial results and not in it, so that the folder can be removed and created under
the lock. The system releases the lock when the process ends, however it ends; a file that a killed process leaves is taken
over by the next run.
"""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images.atomic import writing_errors

_SUFFIX = ".lock"
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
# The holder writes its name just after it has taken the lock.
_WAIT_FOR_NAME_S, _LOOKS = 0.05, 10
# On Windows a locked byte cannot be read by others: one far behind the holder's name is locked.
_LOCKED_BYTE = 2**30


def lock_file(work: Path) -> Path:
    """Return the lock file of an output, given the folder of its partial results."""
    return work.with_name(work.name + _SUFFIX)


def is_held(work: Path) -> bool:
    """Return whether a running process holds the lock of an output; nothing is created or removed.

    Args:
        work: the folder of the partial results.
    """
    try:
        file = lock_file(work).open("r+b")
    except OSError:
        return False
    try:
        _lock(file)
    except OSError:
        return True
    finally:
        file.close()
    return False


@contextmanager
def hold_output(work: Path) -> Iterator[None]:
    """Hold the lock of an output in a `with` block, and remove its file at the end.

    Args:
        work: the folder of the partial results; nothing is created at this path.

    Raises:
        PlanError: another run holds the lock.
        ImageError: the lock cannot be taken there.
    """
    path = lock_file(work)
    created = _create_folders(path.parent)
    try:
        file = _acquire(path)
        try:
            yield
        finally:
            # Removed while it is held, so that it is never the file of another run.
            is_ours = _is_at(file, path)
            if sys.platform == "win32":
                file.close()
            if is_ours:
                path.unlink(missing_ok=True)
            file.close()
    finally:
        for folder in created:
            with suppress(OSError):  # it has content by now, or is in use
                folder.rmdir()


def _create_folders(folder: Path) -> list[Path]:
    """Create a folder, and return those that were missing, the innermost first."""
    missing = [p for p in (folder, *folder.parents) if not p.exists()]
    with writing_errors(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
    return missing


def _acquire(path: Path) -> IO[bytes]:
    """Return the open lock file.

    Raises:
        PlanError: another run holds the lock.
        ImageError: the file cannot be created or locked.
    """
    while True:
        try:
            file = path.open("a+b")
        except OSError as error:
            raise ImageError(
                f"{path}: cannot be created ({error.strerror}); choose another folder for the output"
            ) from error
        try:
            _lock(file)
        except OSError as error:
            owner = _owner(file)
            is_current = _is_at(file, path)
            file.close()
            if error.errno not in _HELD:
                raise ImageError(
                    f"{path}: cannot be locked ({error.strerror}), so two runs could write the same output; choose a folder on a "
                    "disk with file locks"
                ) from error
            if is_current:
                output = path.name.removesuffix(_SUFFIX).removesuffix(".incomplete")
                raise PlanError(
                    f"{path.with_name(output)}: another run ({owner}) is writing this output; wait for it or stop it, or choose "
                    "another output"
                ) from error
            continue  # its holder has just removed it
        if _is_at(file, path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
            file.flush()
            return file
        file.close()


def _lock(file: IO[bytes]) -> None:
    if sys.platform == "win32":
        import msvcrt

        file.seek(_LOCKED_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether an open file is the one at a path."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(file.fileno()))


def _owner(file: IO[bytes]) -> str:
    """Return the process and host of the holder."""
    for _ in range(_LOOKS):
        file.seek(0)
        if found := file.read(200).decode(errors="replace").strip():
            return found
        time.sleep(_WAIT_FOR_NAME_S)
    return "of an unknown process"
