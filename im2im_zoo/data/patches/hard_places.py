"""Where in the training images the loss was high, so that patches are drawn there more often. Knows no network and no images.

As online hard example mining (Shrivastava et al. 2016, arXiv:1604.03540) picks among examples by their loss; as in online batch
selection (Loshchilov & Hutter 2016, arXiv:1511.06343) the loss is the latest that is known of each, so nothing is computed twice.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.data.cache.rounds import Rounds

# Beside the streams of random numbers of `patches` and `rounds`.
_HARD = 11
# What an epoch's mean counts beside what was known before, so that one unlucky patch does not decide.
_NEW = 0.5

HardPlace = tuple[int, tuple[int, ...]]
"""The number of a training image, and the voxel that a patch is drawn around, along the space axes."""


class HardPlaces:
    """The loss in each cell of a grid over each training image: a running mean over epochs of that of the patches whose middle is there.

    A cell is about as large as a patch. Of what is drawn hard, a cell is likely in proportion to its loss, whichever image it is of, and all
    voxels of it alike; one in which no patch was yet counts as the mean of the others. Losses below 0 are counted from the lowest.

    Args:
        shapes: voxels of each training image along the space axes.
        patch_size: voxels of a patch.
        share: of the patches that are drawn so.
        seed: the recipe's.
        rounds: which images are at hand when.
    """

    def __init__(
        self,
        shapes: Sequence[Sequence[int]],
        patch_size: Sequence[int],
        share: float,
        seed: int,
        rounds: Rounds,
    ) -> None:
        self._shapes = [np.array(shape) for shape in shapes]
        self._patch = np.array(patch_size)
        self._share = share
        self._seed = seed
        self._rounds = rounds
        self._grids = [np.maximum(np.round(shape / self._patch).astype(int), 1) for shape in self._shapes]
        self._starts = np.cumsum([0, *(math.prod(grid) for grid in self._grids)])
        self._losses = np.full(self._starts[-1], np.nan)

    @property
    def losses(self) -> NDArray[np.float64]:
        """Of each cell, one image after the other in C order; NaN where it is not known."""
        return self._losses

    @losses.setter
    def losses(self, known: NDArray[np.float64]) -> None:
        if known.shape != self._losses.shape:
            raise ValueError(f"{known.size} losses for {self._losses.size} cells: these are other images")
        self._losses = known.astype(np.float64)

    def sums(
        self, places: NDArray[np.int64], losses: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sums of the losses of patches in each cell, and how many they are.

        Args:
            places: (patch, 1 + axis): the number of the image and the first voxel of each patch.
            losses: (patch,); those that are not finite do not count.
        """
        total, count = np.zeros_like(self._losses), np.zeros_like(self._losses)
        known = np.isfinite(losses)
        cells = [self._cell(int(number), corner) for number, *corner in places[known]]
        np.add.at(total, cells, losses[known])
        np.add.at(count, cells, 1)
        return total, count

    def learn(self, total: NDArray[np.float64], count: NDArray[np.float64]) -> None:
        """Take in what an epoch has shown: see `sums`."""
        seen = count > 0
        mean = total[seen] / count[seen]
        before = self._losses[seen]
        self._losses[seen] = np.where(np.isnan(before), mean, (1 - _NEW) * before + _NEW * mean)

    def draw(self, epoch: int, count: int) -> dict[int, HardPlace]:
        """Which of the patches of an epoch are drawn hard, and where: a function of the epoch, the seed and what was learnt.

        Args:
            epoch: from 0.
            count: patches of the epoch.

        Returns:
            The places of some of the numbers 0 to `count` - 1; none while nothing is known.
        """
        if np.isnan(self._losses).all():
            return {}
        members = self._rounds.members(self._rounds.round_of(epoch))
        cells = np.concatenate([np.arange(self._starts[n], self._starts[n + 1]) for n in members])
        sums = np.cumsum(self._weights()[cells])
        if not sums[-1] > 0:
            return {}
        random = np.random.default_rng((self._seed, _HARD, epoch))
        chosen = np.flatnonzero(random.random(count) < self._share)
        drawn = cells[np.searchsorted(sums, random.random(len(chosen)) * sums[-1], side="right")]
        return {int(n): self._place(int(cell), random) for n, cell in zip(chosen, drawn, strict=True)}

    def _weights(self) -> NDArray[np.float64]:
        known = np.where(np.isnan(self._losses), np.nanmean(self._losses), self._losses)
        return np.asarray(known - min(0.0, float(known.min())))

    def _cell(self, number: int, corner: Sequence[int]) -> int:
        grid, shape = self._grids[number], self._shapes[number]
        index = (np.array(corner) + self._patch // 2) * grid // shape
        return int(self._starts[number] + np.ravel_multi_index(tuple(index), tuple(grid)))

    def _place(self, cell: int, random: np.random.Generator) -> HardPlace:
        number = int(np.searchsorted(self._starts, cell, side="right")) - 1
        grid, shape = self._grids[number], self._shapes[number]
        index = np.unravel_index(cell - self._starts[number], tuple(grid))
        # The voxels v of cell i are those with v * grid // shape = i.
        edges = [
            [-(-bound * int(size) // int(cells)) for bound in (i, i + 1)]
            for i, size, cells in zip(map(int, index), shape, grid, strict=True)
        ]
        return number, tuple(int(random.integers(first, behind)) for first, behind in edges)
