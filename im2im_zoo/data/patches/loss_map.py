"""Map of the loss in the training images, by which hard patches are sampled more often.

Examples are selected by their loss as in online hard example mining (Shrivastava et al. 2016, arXiv:1604.03540), by the latest
known loss as in online batch selection (Loshchilov & Hutter 2016, arXiv:1511.06343), so no loss is computed twice.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.data.cache.rotating_cache import ImageRotation

# A stream of random numbers besides those of `placement` and `rotating_cache`.
_HARD = 11
# Weight of an epoch's mean in the running mean, so that one outlier does not dominate.
_NEW = 0.5

PatchCenter = tuple[int, tuple[int, ...]]
"""The number of a training image, and the center voxel of a patch along the space axes."""


class LossMap:
    """Loss in each cell of a grid over each training image: the running mean over epochs of the patches with their center in it.

    A cell is about as large as a patch. Hard patches are sampled from the cells of all images in proportion to the loss, and
    uniformly within a cell; a cell without patches so far counts as the mean of the others. With losses below 0, the lowest
    counts as 0.

    Args:
        shapes: voxels of each training image along the space axes.
        patch_size: voxels of a patch.
        share: of hard patches.
        seed: the recipe's.
        rotation: the images of each round.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        share: float,
        seed: int,
        rotation: ImageRotation,
    ) -> None:
        self._shapes = [np.array(shape) for shape in shapes]
        self._patch = np.array(patch_size)
        self._share = share
        self._seed = seed
        self._rotation = rotation
        self._grids = [np.maximum(np.round(shape / self._patch).astype(int), 1) for shape in self._shapes]
        self._starts = np.cumsum([0, *(math.prod(grid) for grid in self._grids)])
        self._losses = np.full(self._starts[-1], np.nan)

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each cell, one image after the other in C order; NaN where it is not known."""
        return self._losses

    @losses.setter
    def losses(self, known: NDArray[np.float64]) -> None:
        if known.shape != self._losses.shape:
            raise ValueError(f"{known.size} losses for {self._losses.size} cells: they are of other images")
        self._losses = known.astype(np.float64)

    def sum_by_cell(
        self, places: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sum the losses of patches in each cell.

        Args:
            places: (patch, 1 + axis): the number of the image and the first voxel of each patch.
            losses: (patch,); those that are not finite are ignored.

        Returns:
            The sum of each cell, and its number of patches, both (cell,).
        """
        total, count = np.zeros_like(self._losses), np.zeros_like(self._losses)
        known = np.isfinite(losses)
        cells = [self._find_cell(int(number), corner) for number, *corner in places[known]]
        np.add.at(total, cells, losses[known])
        np.add.at(count, cells, 1)
        return total, count

    def update(self, total: NDArray[np.float64], count: NDArray[np.float64]) -> None:
        """Update the running means with the sums and counts of an epoch, as from `sum_by_cell`."""
        seen = count > 0
        mean = total[seen] / count[seen]
        before = self._losses[seen]
        self._losses[seen] = np.where(np.isnan(before), mean, (1 - _NEW) * before + _NEW * mean)

    def sample_centers(self, epoch: int, count: int) -> dict[int, PatchCenter]:
        """Sample which patches of an epoch are hard, and their centers; depends only on the epoch, the seed and the losses.

        Args:
            epoch: from 0.
            count: patches of the epoch.

        Returns:
            The centers of some of the patches 0 to `count` - 1; empty while no loss is known.
        """
        if np.isnan(self._losses).all():
            return {}
        members = self._rotation.members(self._rotation.find_round(epoch))
        cells = np.concatenate([np.arange(self._starts[n], self._starts[n + 1]) for n in members])
        sums = np.cumsum(self._cell_weights()[cells])
        if not sums[-1] > 0:
            return {}
        random = np.random.default_rng((self._seed, _HARD, epoch))
        chosen = np.flatnonzero(random.random(count) < self._share)
        drawn = cells[np.searchsorted(sums, random.random(len(chosen)) * sums[-1], side="right")]
        return {
            int(n): self._sample_in_cell(int(cell), random) for n, cell in zip(chosen, drawn, strict=True)
        }

    def _cell_weights(self) -> NDArray[np.float64]:
        known = np.where(np.isnan(self._losses), np.nanmean(self._losses), self._losses)
        return np.asarray(known - min(0.0, float(known.min())))

    def _find_cell(self, number: int, corner: Sequence[int]) -> int:
        grid, shape = self._grids[number], self._shapes[number]
        index = (np.array(corner) + self._patch // 2) * grid // shape
        return int(self._starts[number] + np.ravel_multi_index(tuple(index), tuple(grid)))

    def _sample_in_cell(self, cell: int, random: np.random.Generator) -> PatchCenter:
        number = int(np.searchsorted(self._starts, cell, side="right")) - 1
        grid, shape = self._grids[number], self._shapes[number]
        index = np.unravel_index(cell - self._starts[number], tuple(grid))
        # The voxels v of cell i are those with v * grid // shape = i.
        edges = [
            [-(-bound * int(size) // int(cells)) for bound in (i, i + 1)]
            for i, size, cells in zip(map(int, index), shape, grid, strict=True)
        ]
        return number, tuple(int(random.integers(first, behind)) for first, behind in edges)
