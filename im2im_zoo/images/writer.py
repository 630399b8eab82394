"""Writer of an image that grows region by region, and its parts for other processes. Knows no format."""

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.atomic import atomic_output
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.atomic import (
    KeptError,
    commit,
    discard,
    hidden_path,
    sync_everything,
    writing_errors,
)
from im2im_zoo.images.labels_group import image_of_label, list_label, make_labels_group
from im2im_zoo.images.region import Frame
from im2im_zoo.images.target import NewImage, RegionPlace, RegionWriter, Stored, Target


class ImageWriter:
    """Writer of an image, returned by `create_image` and used with `with`.

    Leaving the `with` block normally completes the output and moves it to its path. Leaving it by an exception
    removes what was written, or keeps it for a later run if `create_image` got `work`. Regions may come
    in any order, but must be disjoint; two threads or processes must not write to the same chunk at once. Voxels that are
    never written are zero.

    After a kill or a power cut. The output at `work` is created under another name and renamed, so what is there
    can be resumed. A chunk (or shard) of an OME-Zarr is written under another name and renamed too: after a kill it is
    whole, or as it was before. Voxels of TIFF and `.npy` are written in place: after a kill a region that was being
    written may be there in part. After a power cut, whatever was written since the last `os.sync()` may be missing, or
    cut short; all that was written before is there whole. So: record a region as done only after `write` has returned and
    `os.sync()` after it, and write again, with the same bounds, every region that is not recorded.

    Attributes:
        path: where the output appears.
        axes, shape, dtype: as `create_image` was given them.
        chunks: voxels that are stored together (a shard, if there are shards), in the order of `axes`; regions that
            align with them are written without reading back. Ones where every region is alike (TIFF, `.npy`).
    """

    def __init__(
        self,
        path: Path,
        image: NewImage,
        target: Target,
        *,
        overwrite: bool,
        work: Path | None = None,
        check: Callable[[Path], None] = lambda _: None,
    ) -> None:
        self.path = path
        self.axes = image.axes
        self.shape = image.shape
        self.dtype = image.dtype
        order = tuple(image.axes.index(axis) for axis in target.axes)
        self._frame = Frame(path, image.axes, image.shape, image.dtype, order)
        self._target = target
        self._overwrite = overwrite
        self._keep = work is not None
        self._partial = hidden_path(path, "partial") if work is None else work
        self._check = check
        self._open = False
        self._marking = threading.Lock()
        chunk_of = dict(zip(target.axes, target.chunks, strict=True))
        self.chunks = tuple(chunk_of[axis] for axis in image.axes)

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region, and the blocks of the pyramid that can be computed with it.

        Threads may write at the same time, but wait for each other where the pyramid is computed.

        Args:
            region: axis -> slice; an axis that is left out is written from end to end.
            block: its voxels, in the writer's order of axes and of its dtype.

        Raises:
            ImageError: the region is not within the image, the block has another shape or dtype, or the disk is full.
        """
        self._check_open()
        key = _write(self._frame, self._target, region, block)
        self._mark(key)

    def mark(self, region: Mapping[str, slice]) -> None:
        """Count a region as written: by another process (see `part`), or by an earlier run.

        The pyramid is computed from marked regions as they come, and from the others at the end.
        """
        self._check_open()
        self._mark(self._frame.in_file(self._frame.key(region)))

    def stored(self, region: Mapping[str, slice]) -> Stored:
        """Return the files of a region that was written, here or in another process."""
        self._check_open()
        return self._target.stored(self._frame.in_file(self._frame.key(region)))

    def stored_reduced(self, level: int, block: int) -> Stored:
        """Return the files of a block of the pyramid, as `create_image` passes it to `on_reduced`."""
        return self._target.stored_reduced(level, block)

    def part(self) -> "ImagePart":
        """Return a writer of regions for another process; it can be pickled. Report its regions by `mark`."""
        self._check_open()
        return ImagePart(self._frame, self._target.place())

    def __enter__(self) -> Self:
        try:
            with writing_errors(self.path, self._frame.nbytes):
                if not self._keep:
                    self._target.create(self._partial)
                elif not self._partial.exists():
                    with atomic_output(self._partial, durable=True) as begun:
                        self._target.create(begun)
                self._target.open(self._partial)
        except BaseException:
            self._abandon()
            raise
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            self._abandon()
            return
        try:
            with writing_errors(self.path, self._frame.nbytes):
                self._target.finish()
                if self._keep:
                    sync_everything()
                self._target.check_in_place()
                self._check(self._partial)
                self._appear()
        except KeptError:
            raise
        except BaseException:
            self._abandon()
            raise

    def _appear(self) -> None:
        image = image_of_label(self.path)
        if image is not None:
            make_labels_group(image)
        folder = self._partial.is_dir()
        commit(self._partial, self.path, folder=folder, overwrite=self._overwrite, durable=self._keep)
        if image is not None:
            list_label(self.path)

    def _abandon(self) -> None:
        self._target.close()
        if not self._keep:
            discard(self._partial)

    def _check_open(self) -> None:
        if not self._open:
            raise ImageError(
                f"{self.path}: is not open for writing; write within `with create_image(...) as writer:`"
            )

    def _mark(self, key: tuple[slice, ...]) -> None:
        with self._marking, writing_errors(self.path, self._frame.nbytes):
            self._target.mark(key)


class ImagePart:
    """Writer of regions of an image that an `ImageWriter` of another process has open; see `ImageWriter.part`.

    It can be pickled, and opens the image where and when it is first used. It writes nothing of the pyramid.
    """

    def __init__(self, frame: Frame, place: RegionPlace) -> None:
        self._frame = frame
        self._place = place
        self._opened: RegionWriter | None = None
        self._process = 0

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region, as `ImageWriter.write`; it must not share a chunk with what others write."""
        # A forked child shares the parent's file position, so it opens the file for itself.
        if self._opened is None or self._process != os.getpid():
            with writing_errors(self._frame.path, self._frame.nbytes):
                self._opened = self._place.open()
            self._process = os.getpid()
            weakref.finalize(self, self._opened.close)
        _write(self._frame, self._opened, region, block)

    def __getstate__(self) -> tuple[Frame, RegionPlace]:
        return self._frame, self._place

    def __setstate__(self, state: tuple[Frame, RegionPlace]) -> None:
        self._frame, self._place = state
        self._opened, self._process = None, 0


def _write(
    frame: Frame, writer: RegionWriter, region: Mapping[str, slice], block: NDArray[Any]
) -> tuple[slice, ...]:
    """Check and write a block; return its key in the file's order."""
    key = frame.key(region)
    values = frame.block(np.asarray(block), key)
    inner = frame.in_file(key)
    if values.size:
        with writing_errors(frame.path, frame.nbytes):
            writer.write(inner, values.transpose(frame.order))
    return inner
