"""Checks of the regions and blocks of an image that is written. Writes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import AxesError, ImageError


@dataclass(frozen=True, slots=True)
class Frame:
    """Axes, shape and type that blocks must fit into; plain data that can be sent to other processes.

    Attributes:
        path: where the image appears, for messages.
        axes, shape, dtype: in the order of the blocks.
        order: position in `axes` of each axis of the file.
    """

    path: Path
    axes: tuple[AxisName, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels, uncompressed."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def key(self, region: Mapping[str, slice]) -> tuple[slice, ...]:
        """Return the region as slices with start and stop in the order of `axes`; an axis that is left out is whole.

        Raises:
            AxesError: an axis that the image does not have.
            ImageError: the region is not within the image.
        """
        if unknown := sorted(set(region) - set(self.axes)):
            raise AxesError(
                f"{self.path}: the region names {', '.join(unknown)}, but the image has {', '.join(self.axes)}"
            )
        return tuple(
            self._span(axis, region.get(axis, slice(None)), size)
            for axis, size in zip(self.axes, self.shape, strict=True)
        )

    def block(self, block: NDArray[Any], key: tuple[slice, ...]) -> NDArray[Any]:
        """Return a block that fits its region, in the image's dtype.

        Raises:
            ImageError: another shape, or values that the image cannot hold.
        """
        expected = tuple(k.stop - k.start for k in key)
        if block.shape != expected:
            raise ImageError(
                f"{self.path}: the block has the shape {block.shape}, but its region {expected} "
                f"({', '.join(self.axes)})"
            )
        floats = block.dtype.kind == "f" and self.dtype.kind == "f"
        if not floats and not np.can_cast(block.dtype, self.dtype, "safe"):
            raise ImageError(
                f"{self.path}: holds {self.dtype}, which cannot take the values of {block.dtype}; convert the block first"
            )
        return block.astype(self.dtype, copy=False)

    def in_file(self, key: tuple[slice, ...]) -> tuple[slice, ...]:
        """Return a key in the file's order of axes."""
        return tuple(key[i] for i in self.order)

    def _span(self, axis: str, span: slice, size: int) -> slice:
        start = 0 if span.start is None else int(span.start)
        stop = size if span.stop is None else int(span.stop)
        if span.step not in (None, 1) or not 0 <= start <= stop <= size:
            raise ImageError(
                f"{self.path}: the region {axis} {start}:{stop}:{span.step or 1} is not within the {size} voxels of "
                "the axis with step 1"
            )
        return slice(start, stop)
