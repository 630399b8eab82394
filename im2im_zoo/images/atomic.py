"""Output that appears at its path only when it is complete, and errors of the disk in words. Knows no format."""

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.labels_group import image_of_label
from im2im_zoo.images.zarr_contents import is_zarr

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
    # The group of labels is made at the end, and what it is made in was looked at before.
    if not path.parent.is_dir() and image_of_label(path) is None:
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


def check_work(work: Path, path: Path) -> None:
    """Refuse a place to work in from which the output could not be moved to its path in one step.

    Raises:
        ImageError: its folder is missing, or on another disk.
    """
    if not work.parent.is_dir():
        raise ImageError(f"{work}: the folder {work.parent} does not exist; create it first")
    if work.parent.stat().st_dev != _existing(path.parent).stat().st_dev:
        raise ImageError(f"{work}: is on another disk than {path}; work in a folder beside it")


def hidden_path(path: Path, word: str) -> Path:
    """A hidden sibling that nobody else uses, on the same file system so that it can be renamed.

    That of a label image is beside the whole image, in which nothing may be seen before it is complete.
    """
    image = image_of_label(path)
    near = path if image is None else image.with_name(f"{image.name}.{path.name}")
    return near.with_name(f".{near.name}.{word}-{os.getpid()}-{secrets.token_hex(3)}")


def make_whole(path: Path, make: Callable[[Path], None]) -> None:
    """Make a file or folder such that whatever is found at its path, even after a power cut, was made to the end."""
    partial = hidden_path(path, "begun")
    try:
        make(partial)
        for folder, _, files in os.walk(partial):
            for file in files:
                _sync(Path(folder, file))
            _sync(Path(folder))
        if partial.is_file():
            _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except BaseException:
        discard(partial)
        raise


def commit(partial: Path, path: Path, *, folder: bool, overwrite: bool, durable: bool = False) -> None:
    """Let the finished output appear at its path.

    Args:
        partial: where it is.
        path: where it is to be.
        folder: whether it is one.
        overwrite: whether something of the same kind may be replaced.
        durable: return only when a power cut cannot undo it. What is in the output must be on the disk before.

    Raises:
        ImageError: what is there by now may not be replaced; the finished output is kept and named.
    """
    try:
        check_target(path, folder=folder, overwrite=overwrite)
    except ImageError as error:
        raise KeptError(
            f"{error} (it came there meanwhile); the finished output is kept at {partial}"
        ) from error
    if not folder or not path.exists():
        partial.replace(path)
    else:
        # A folder cannot be replaced in one step: the old one steps aside, and back if the new one cannot come.
        aside = hidden_path(path, "replaced")
        path.replace(aside)
        try:
            partial.replace(path)
        except BaseException:
            aside.replace(path)
            raise
        shutil.rmtree(aside)
    if durable:
        _sync(path.parent)


def sync_everything() -> None:
    """Have the system write what it holds to the disks. Windows has no such call."""
    if hasattr(os, "sync"):
        os.sync()


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


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
            free = shutil.disk_usage(_existing(path.parent)).free
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
