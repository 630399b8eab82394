"""How likely patches are drawn around each part of an image: sums of its foreground, or of its costs, in cells. Draws none."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.data.cache.stored import Reader, Stored
from im2im_zoo.data.patches.patches import Weights

_CELLS = 2**15
_BLOCK_BYTES = 64 * 2**20


def weights_of(image: Stored, shape: Sequence[int], share: float, *, foreground: bool) -> Weights:
    """Weights of the cells of an image, which is read once, in parts; one with few voxels has a cell for each.

    Args:
        image: a target or a cost map.
        shape: its voxels along (z,) y, x.
        share: of the patches that are drawn by weight.
        foreground: whether a voxel weighs 1 where any channel is above 0, and else 0; or as much as its first channel says.
    """
    side = max(1, math.ceil((math.prod(shape) / _CELLS) ** (1 / len(shape))))
    cell = tuple(min(side, size) for size in shape)
    grid = tuple(math.ceil(size / length) for size, length in zip(shape, cell, strict=True))
    sums = np.zeros(grid)
    reader = Reader()
    rows = max(_BLOCK_BYTES // max(4 * math.prod(shape[1:]), 1) // cell[0], 1)
    for row in range(0, grid[0], rows):
        start, stop = row * cell[0], min((row + rows) * cell[0], shape[0])
        corner, size = (start, *(0 for _ in shape[1:])), (stop - start, *shape[1:])
        part = reader.read(image, corner, size)
        weight: NDArray[np.float64] = np.asarray((part > 0).any(0) if foreground else part[0], np.float64)
        for axis, length in enumerate(cell):
            weight = np.asarray(np.add.reduceat(weight, range(0, weight.shape[axis], length), axis))
        sums[row : row + len(weight)] = weight
    return Weights(np.cumsum(sums), grid, cell, tuple(shape), share)
