"""Where patches lie in an image: random ones for training, a grid for validation. Integers only: no arrays of voxels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

# One stream of random numbers for each use, so that none depends on how much another draws.
_ORDER, _PATCH = 0, 1
_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Draw:
    """A random patch: its first voxel along each space axis, and a seed for what is done to it."""

    corner: tuple[int, ...]
    seed: int


def draw_patch(sizes: Sequence[int], patch: Sequence[int], seed: int, epoch: int, index: int) -> Draw:
    """The patch number `index` of an epoch, a function of the arguments alone, whichever process asks.

    Args:
        sizes, patch: voxels of the image and of the patch along the space axes.
        seed: the recipe's.
        epoch, index: from 0.

    Returns:
        A corner such that the patch lies within the image, all alike likely.
    """
    random = np.random.default_rng((seed, _PATCH, epoch, index))
    corner = tuple(int(random.integers(size - length + 1)) for size, length in zip(sizes, patch, strict=True))
    return Draw(corner, int(random.integers(_SEEDS)))


def order_of_epoch(count: int, seed: int, epoch: int) -> list[int]:
    """The numbers 0 to `count` - 1 in the random order of an epoch."""
    order: list[int] = np.random.default_rng((seed, _ORDER, epoch)).permutation(count).tolist()
    return order


def grid(sizes: Sequence[int], patch: Sequence[int]) -> list[tuple[int, ...]]:
    """Corners of patches that cover an image: side by side from the start, the last one of an axis shifted inward.

    Args:
        sizes, patch: voxels of the image and of the patch along the space axes; no patch larger than the image.
    """
    starts = [
        [min(i * length, size - length) for i in range(math.ceil(size / length))]
        for size, length in zip(sizes, patch, strict=True)
    ]
    return list(product(*starts))
