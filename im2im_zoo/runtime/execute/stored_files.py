"""Files of finished units in the folder of a run: scratch arrays, and checks that nothing of them was lost."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.formats.ome_zarr.contents import stored_in
from im2im_zoo.images.target import Stored
from im2im_zoo.runtime.execute.outputs import scratch_chunks
from im2im_zoo.runtime.execute.tile_job import scratch_shape
from im2im_zoo.runtime.execute.tile_stages import scratch_dtype
from im2im_zoo.runtime.plan.plan import Plan

_START_OVER = (
    "start over with --restart, and remove nothing in the folder of a prediction that is to be resumed"
)


@dataclass(frozen=True, slots=True)
class ScratchFolder:
    """Create or open scratch arrays in the folder of a run; no two tiles share a chunk."""

    plan: Plan
    folder: Path
    fresh: bool

    def __call__(self, number: int, shape: tuple[int, ...], dtype: str) -> Any:
        import zarr

        path = self._path(number)
        # All chunks are written, also those of zeros, so that a lost one is noticed.
        with zarr.config.set({"array.write_empty_chunks": True}):
            if not self.fresh:
                return zarr.open_array(path, mode="r+")
            chunks = scratch_chunks(self.plan, number, shape)
            return zarr.create_array(
                store=str(path), shape=shape, chunks=chunks, dtype=dtype, compressors=None, overwrite=True
            )

    def check(self, numbers: Sequence[int]) -> None:
        """Check that all chunks are there, once all tiles are computed.

        Raises:
            ImageError: some are missing.
        """
        for number in numbers:
            shape = scratch_shape(self.plan, number)
            sides = scratch_chunks(self.plan, number, shape)
            count = math.prod(-(-n // side) for n, side in zip(shape, sides, strict=True))
            size = math.prod(sides) * np.dtype(scratch_dtype(self.plan, number)).itemsize
            check_files([self._path(number)], Stored(count, count * size))

    def _path(self, number: int) -> Path:
        return self.folder / f"scratch_{number}.zarr"


def check_files(images: Sequence[Path], expected: Stored) -> None:
    """Check that images have the files that hold the voxels of their finished parts.

    Raises:
        ImageError: an image, or some of its files, was removed or cut short.
    """
    if lost := [path for path in images if not path.exists()]:
        raise ImageError(f"{lost[0]} was removed while this prediction ran; {_START_OVER}")
    found = Stored()
    for path in images:
        if path.is_dir():
            found = found.plus(stored_in(path))
    names = ", ".join(map(str, images))
    if found.files < expected.files:
        raise ImageError(
            f"{names}: {expected.files - found.files} of {expected.files} chunks of the finished tiles are missing; {_START_OVER}"
        )
    if found.bytes < expected.bytes:
        raise ImageError(
            f"{names}: chunks of the finished tiles are cut short: {found.bytes} of {expected.bytes} bytes are left; {_START_OVER}"
        )
