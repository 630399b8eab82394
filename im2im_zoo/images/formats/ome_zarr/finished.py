"""Bookkeeping of a pyramid: the finished blocks of each level, and those that can be computed from them. No voxels, no files."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError

Block = tuple[int, ...]


class FinishedBlocks:
    """Finished blocks of all levels: a block is one chunk, or one shard where chunks are stored in shards.

    Each block of a level has one of the next level above it, which is computed from it and its neighbours. The cost of marking
    grows with the blocks that are marked, not with the image. Not for several threads at once.

    Args:
        shapes: voxels of each level.
        sides: voxels of the blocks of each level.
        steps: voxels along each axis of the level before that make one; of each level, ones for the first.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        sides: Sequence[tuple[int, ...]],
        steps: Sequence[tuple[int, ...]],
    ) -> None:
        self._shapes, self._sides, self._steps = list(shapes), list(sides), list(steps)
        self.grids = [
            tuple(math.ceil(n / side) for n, side in zip(shape, each, strict=True))
            for shape, each in zip(shapes, sides, strict=True)
        ]
        self._finished = [np.zeros(grid, bool) for grid in self.grids]
        # How many of the blocks that a block is computed from are not finished.
        self._missing = [np.zeros(self.grids[0], np.int32)]
        for fine, coarse, step in zip(self.grids, self.grids[1:], self._steps[1:], strict=False):
            below = [
                np.bincount(np.arange(n) // s, minlength=m)
                for n, m, s in zip(fine, coarse, step, strict=True)
            ]
            counts: NDArray[Any] = np.ones((1,) * len(coarse), np.int32)
            for axis, along in enumerate(below):
                counts = counts * along.reshape([-1 if a == axis else 1 for a in range(len(coarse))])
            self._missing.append(counts.astype(np.int32))

    def bounds(self, level: int, block: Block) -> tuple[slice, ...]:
        """Return the voxels of a block."""
        return tuple(
            slice(at * side, min((at + 1) * side, n))
            for at, side, n in zip(block, self._sides[level], self._shapes[level], strict=True)
        )

    def bounds_of(self, level: int, number: int) -> tuple[slice, ...]:
        """Return the voxels of the block of a number."""
        return self.bounds(level, tuple(int(i) for i in np.unravel_index(number, self.grids[level])))

    def number(self, level: int, block: Block) -> int:
        """Return a block's number in its level, counted in C order."""
        return int(np.ravel_multi_index(block, self.grids[level]))

    def mark_region(self, key: tuple[slice, ...]) -> list[Block]:
        """Count voxels of level 0 as written; blocks that are not covered wholly are left out.

        Returns:
            The blocks of level 1 that can be computed now.
        """
        span = []
        for k, side, n, count in zip(key, self._sides[0], self._shapes[0], self.grids[0], strict=True):
            stop = count if k.stop == n else k.stop // side
            span.append(slice(-(-k.start // side), stop))
        unmarked = np.argwhere(~self._finished[0][tuple(span)])
        return self._mark(0, unmarked + [k.start for k in span])

    def mark(self, level: int, block: Block) -> list[Block]:
        """Count a block as finished.

        Returns:
            The blocks of the next level that can be computed now.
        """
        return [] if self._finished[level][block] else self._mark(level, np.array([block]))

    def mark_number(self, level: int, number: int) -> None:
        """Count a block of a reduced level as finished by an earlier run.

        Raises:
            ImageError: the level has no such block.
        """
        if not 0 < level < len(self.grids) or not 0 <= number < self._finished[level].size:
            raise ImageError(f"the pyramid has no block {number} of level {level}; start over")
        at = np.unravel_index(number, self.grids[level])
        self.mark(level, tuple(int(i) for i in at))

    def ready(self, level: int) -> list[Block]:
        """Return the unfinished blocks of a reduced level whose own blocks below are all finished."""
        found = np.argwhere((self._missing[level] == 0) & ~self._finished[level])
        return [tuple(int(i) for i in row) for row in found]

    def unfinished(self, level: int) -> list[Block]:
        """Return the blocks of a level that are not finished."""
        return [tuple(int(i) for i in row) for row in np.argwhere(~self._finished[level])]

    def _mark(self, level: int, blocks: NDArray[Any]) -> list[Block]:
        """Count unfinished blocks, one a row, as finished."""
        self._finished[level][tuple(blocks.T)] = True
        if level + 1 == len(self.grids) or not len(blocks):
            return []
        above, found = level + 1, blocks // self._steps[level + 1]
        parents, counts = np.unique(found, axis=0, return_counts=True)
        at = tuple(parents.T)
        self._missing[above][at] -= counts.astype(np.int32)
        can = (self._missing[above][at] == 0) & ~self._finished[above][at]
        return [tuple(int(i) for i in row) for row in parents[can]]
