"""Where patches lie in an image: random ones for training, a grid for validation. Integers only: no arrays of voxels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# One stream of random numbers for each use, so that none depends on how much another draws.
_ORDER, _PATCH, _LONE = 0, 1, 2
_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class Draw:
    """A random patch: its first voxel along each space axis, and seeds for what is done to it.

    `seed` is of what is done before it is put into a batch, `device_seed` of what is done on the device.
    """

    corner: tuple[int, ...]
    seed: int
    device_seed: int


class Aim(Protocol):
    """What some patches of an image are drawn around: the `share` of such patches, and the middle of one."""

    @property
    def share(self) -> float: ...

    def middle(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """A voxel, (axis,); None where there is nothing to aim at."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """Objects, each alike likely; of one, each voxel of its box: `boxes` are as `objects.boxes_of` gives them."""

    boxes: NDArray[np.int64]
    share: float

    def middle(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """A voxel in the box of an object."""
        if not len(self.boxes):
            return None
        first, behind = self.boxes[random.integers(len(self.boxes))]
        return np.asarray(random.integers(first, behind))


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Voxels that are likely in proportion to a weight, known of cells: within one, all are alike.

    Attributes:
        cumulative: of the cells in C order, the sum of the weights of it and those before, (cell,).
        grid: cells along each axis.
        cell: voxels of one along each axis; less at the image's far border.
        sizes: of the image.
        share: of such patches.
    """

    cumulative: NDArray[np.float64]
    grid: tuple[int, ...]
    cell: tuple[int, ...]
    sizes: tuple[int, ...]
    share: float

    def middle(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """A voxel of a cell, the cell by its weight."""
        total = self.cumulative[-1]
        if not total > 0:
            return None
        number = np.searchsorted(self.cumulative, random.random() * total, side="right")
        first = np.array(np.unravel_index(number, self.grid), np.int64) * np.array(self.cell, np.int64)
        return np.asarray(random.integers(first, np.minimum(first + self.cell, self.sizes)))


def draw_patch(
    sizes: Sequence[int],
    patch: Sequence[int],
    seed: int,
    epoch: int,
    index: int,
    aim: Aim | None = None,
    middle: Sequence[int] | None = None,
) -> Draw:
    """The patch number `index` of an epoch, a function of the arguments alone, whichever process asks.

    Args:
        sizes, patch: voxels of the image and of the patch along the space axes.
        seed: the recipe's.
        epoch, index: from 0.
        aim: what of the image some patches are drawn around, if any are.
        middle: the voxel that this one is drawn around, if that is known.

    Returns:
        A corner such that the patch lies within the image, all alike likely; of one that is aimed, the middle is where the aim
        says, or as near to it as the image allows.
    """
    random = np.random.default_rng((seed, _PATCH, epoch, index))
    around = None if middle is None else np.array(middle, np.int64)
    if aim is not None and random.random() < aim.share:
        around = aim.middle(random)
    if around is None:
        return _draw(random, sizes, patch)
    inside = np.clip(around - np.array(patch) // 2, 0, np.array(sizes) - patch)
    return Draw(tuple(map(int, inside)), int(random.integers(_SEEDS)), int(random.integers(_SEEDS)))


def draw_lone_patch(
    images: Sequence[Sequence[int]], patch: Sequence[int], stream: int, seed: int, epoch: int, index: int
) -> tuple[int, Draw]:
    """A patch of any of several images, a function of the arguments alone.

    Args:
        images: voxels of each along the space axes.
        patch, seed, epoch, index: as in `draw_patch`.
        stream: from 0; what is drawn in one is independent of what is drawn in another.

    Returns:
        The number of an image, all alike likely, and a patch in it.
    """
    random = np.random.default_rng((seed, _LONE + stream, epoch, index))
    number = int(random.integers(len(images)))
    return number, _draw(random, images[number], patch)


def _draw(random: np.random.Generator, sizes: Sequence[int], patch: Sequence[int]) -> Draw:
    corner = tuple(int(random.integers(size - length + 1)) for size, length in zip(sizes, patch, strict=True))
    return Draw(corner, int(random.integers(_SEEDS)), int(random.integers(_SEEDS)))


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
