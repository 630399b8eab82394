"""Output that appears at its path only when it is complete, and errors of the disk in words. Knows no format."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from im2im_zoo.errors import ImageError
from im2im_zoo.images.ome_zarr import is_zarr

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_target(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse a path that must not be written to.

    Args:
        path: where the output is to appear.
        folder: whether the output is a folder (zarr).
        overwrite: whether something of the same kind may be replaced.

    Raises:
        ImageError: it exists and may not be replaced, or its folder is missing.
    """
    if not path.parent.is_dir():
        raise ImageError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not path.exists():
        return
    if not overwrite:
        raise ImageError(f"{path}: exists already; choose another path, or say overwrite")
    # A mistyped path must not cost a person's folder.
    if path.is_dir() and not is_zarr(path):
        raise ImageError(f"{path}: is a folder which is no zarr, and is not replaced; choose another path")
    if path.is_dir() != folder:
        raise ImageError(
            f"{path}: is a {'folder' if path.is_dir() else 'file'} and would become the other; choose another path"
        )


def partial_path(path: Path) -> Path:
    """A hidden sibling that nobody else uses, on the same file system so that it can be renamed."""
    return path.with_name(f".{path.name}.partial-{os.getpid()}-{secrets.token_hex(3)}")


def commit(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Let the finished output appear at its path.

    Raises:
        ImageError: somebody else has put something there meanwhile; the finished output is kept and named.
    """
    if path.exists() and not overwrite:
        raise KeptError(
            f"{path}: was created by another program meanwhile; the finished output is kept at {partial}"
        )
    if not partial.is_dir() or not path.exists():
        partial.replace(path)
        return
    # A folder cannot be replaced in one step: the old one steps aside, and back if the new one cannot come.
    aside = path.with_name(f".{path.name}.replaced-{os.getpid()}-{secrets.token_hex(3)}")
    path.replace(aside)
    try:
        partial.replace(path)
    except BaseException:
        aside.replace(path)
        raise
    shutil.rmtree(aside)


class KeptError(ImageError):
    """A finished output that could not take its place and must not be removed."""


def discard(partial: Path) -> None:
    """Remove an output that is not finished."""
    if partial.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
    else:
        partial.unlink(missing_ok=True)


@contextmanager
def writing_errors(path: Path, needed_bytes: int) -> Iterator[None]:
    """Turn errors of the disk into an ImageError with the path and what to do.

    Args:
        path: the output.
        needed_bytes: its voxels, uncompressed.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            free = shutil.disk_usage(path.parent).free
            limit = (
                " (or the size that this process may write is limited)" if error.errno == errno.EFBIG else ""
            )
            raise ImageError(
                f"{path}: the disk is full{limit}: its voxels are {needed_bytes:,} bytes uncompressed, and {free:,} bytes "
                "are free; make room or write elsewhere"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ImageError(
                f"{path}: may not be written there ({error.strerror}); choose another folder"
            ) from error
        raise ImageError(f"{path}: cannot be written: {error}") from error
