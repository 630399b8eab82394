"""The grid of blocks that cover an image once, with conversions between voxels, blocks and flat indices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Region = tuple[slice, ...]


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """Blocks in raster order, those at the ends smaller.

    Attributes:
        shape: of the image along (z,) y, x, in voxels.
        block: sides of a block, in voxels.
    """

    shape: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return math.prod(self.counts)

    @property
    def voxels(self) -> int:
        """Number of voxels of the image."""
        return math.prod(self.shape)

    def region(self, number: int) -> Region:
        """Return the region of a block."""
        at = np.unravel_index(number, self.counts)
        return tuple(
            slice(int(i) * side, min((int(i) + 1) * side, n))
            for i, side, n in zip(at, self.block, self.shape, strict=True)
        )

    def grow(self, region: Region, margin: Sequence[int]) -> Region:
        """Extend a region by a margin in voxels at each end, within the image."""
        return tuple(
            slice(max(0, s.start - m), min(n, s.stop + m))
            for s, m, n in zip(region, margin, self.shape, strict=True)
        )

    def blocks_in(self, region: Region) -> list[int]:
        """Return the numbers of the blocks that overlap a region, in raster order."""
        spans = [
            range(s.start // side, -(-s.stop // side)) for s, side in zip(region, self.block, strict=True)
        ]
        return [int(np.ravel_multi_index(at, self.counts)) for at in product(*spans)]

    def owners(self, coordinates: NDArray[Any]) -> NDArray[np.intp]:
        """Return the block of each voxel.

        Args:
            coordinates: (axis, n), integers within the image.
        """
        at = tuple(c // side for c, side in zip(coordinates, self.block, strict=True))
        return np.asarray(np.ravel_multi_index(at, self.counts), np.intp)

    def flat(self, region: Region, local: NDArray[Any]) -> NDArray[np.int64]:
        """Convert flat indices in a region to flat indices in the image."""
        sizes = tuple(s.stop - s.start for s in region)
        at = np.unravel_index(local, sizes)
        whole = tuple(c.astype(np.int64) + s.start for c, s in zip(at, region, strict=True))
        return np.asarray(np.ravel_multi_index(whole, self.shape), np.int64)

    def coordinates(self, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the coordinates (axis, n) of flat indices in the image."""
        return np.stack(np.unravel_index(flat, self.shape)).astype(np.int64)

    def faces(self, number: int) -> list[tuple[int, bool, int]]:
        """Return the faces between a block and its neighbours: axis, whether it is the far side, neighbour's number."""
        at = [int(i) for i in np.unravel_index(number, self.counts)]
        found = []
        for axis, (i, count) in enumerate(zip(at, self.counts, strict=True)):
            for far in (False, True):
                other = i + (1 if far else -1)
                if 0 <= other < count:
                    place = [*at[:axis], other, *at[axis + 1 :]]
                    found.append((axis, far, int(np.ravel_multi_index(place, self.counts))))
        return found


def relative(region: Sequence[slice], outer: Sequence[slice]) -> Region:
    """Return a region in the coordinates of another that contains it."""
    return tuple(slice(r.start - o.start, r.stop - o.start) for r, o in zip(region, outer, strict=True))


def face(labels: NDArray[Any], axis: int, far: bool) -> NDArray[Any]:
    """Return the outermost plane of an array at one side, as a view."""
    return labels[(slice(None),) * axis + (-1 if far else 0,)]
