"""Checks of an output path, and errors of the disk as messages with a remedy."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from im2im_zoo.core.atomic import (
    discard,
    hidden_sibling,
    move_into_place,
    remove_leftovers,
    sync_everything,
)
from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.images.labels_group import image_of_label
from im2im_zoo.images.registry import is_marked_folder

__all__ = [
    "KeptError",
    "check_target",
    "check_work",
    "commit",
    "discard",
    "hidden_path",
    "sync_everything",
    "writing_errors",
]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_target(path: Path, *, folder: bool, overwrite: bool) -> None:
    """Refuse a path that must not be written to.

    Args:
        path: where the output is to appear.
        folder: whether the output is a folder.
        overwrite: whether something of the same kind may be replaced.

    Raises:
        ImageError: the path exists and may not be replaced, or its folder is missing.
    """
    # The group of labels is created at the end, and its image was checked before.
    if not path.parent.is_dir() and image_of_label(path) is None:
        raise ImageError(f"{path}: the folder {path.parent} does not exist; create it first")
    if not path.exists():
        return
    if not overwrite:
        raise ImageError(f"{path}: exists already; choose another path, or pass overwrite=True")
    # A mistyped path must not cost a user's folder.
    if path.is_dir() and not is_marked_folder(path):
        raise ImageError(f"{path}: a folder that is not an image is not replaced; choose another path")
    if path.is_dir() != folder:
        raise ImageError(
            f"{path}: is a {'folder' if path.is_dir() else 'file'} and would become the other; choose another path"
        )


def check_work(work: Path, path: Path) -> None:
    """Refuse a place for unfinished output from which it could not be moved to its path in one step.

    Raises:
        ImageError: the folder of `work` is missing, or on another disk.
    """
    if not work.parent.is_dir():
        raise ImageError(f"{work}: the folder {work.parent} does not exist; create it first")
    if work.parent.stat().st_dev != _existing(path.parent).stat().st_dev:
        raise ImageError(f"{work}: is on another disk than {path}; work in a folder beside it")


def hidden_path(path: Path, word: str) -> Path:
    """Return a hidden sibling of a path that nobody else uses, on the same file system so that it can be renamed.

    That of a label image is beside the whole image, in which nothing may appear before it is complete.
    """
    return hidden_sibling(_beside(path), word)


def remove_leftovers_of(path: Path) -> None:
    """Remove what killed processes have left of an output that nobody is writing now."""
    remove_leftovers(path, _beside(path))


def _beside(path: Path) -> Path:
    """Return the path that hidden siblings of an output are named after."""
    image = image_of_label(path)
    return path if image is None else image.with_name(f"{image.name}.{path.name}")


def commit(partial: Path, path: Path, *, folder: bool, overwrite: bool, durable: bool = False) -> None:
    """Move a finished output to its path.

    Args:
        partial: the output.
        path: where it appears.
        folder: whether it is a folder.
        overwrite: whether something of the same kind may be replaced.
        durable: return only when a power cut cannot undo it. What is in the output must be on the disk before.

    Raises:
        KeptError: what is there by now may not be replaced; the finished output is kept, and named.
    """
    try:
        check_target(path, folder=folder, overwrite=overwrite)
    except ImageError as error:
        raise KeptError(
            f"{error} (it appeared there meanwhile); the finished output is kept at {partial}"
        ) from error
    move_into_place(partial, path, durable=durable, aside=hidden_path(path, "replaced"))


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return path if path.exists() else _existing(path.parent)


class KeptError(ImageError):
    """A finished output that could not be moved to its path and must not be removed."""


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
                f"{path}: the disk is full{limit}: its voxels take {bytes_text(needed_bytes)} uncompressed, and {bytes_text(free)} "
                "are free; make room or write elsewhere"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise ImageError(
                f"{path}: cannot be written there ({error.strerror}); choose another folder"
            ) from error
        raise ImageError(f"{path}: cannot be written: {error}") from error
