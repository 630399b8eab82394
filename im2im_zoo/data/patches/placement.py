"""Positions of patches in an image: random ones for training, a grid for validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from im2im_zoo.data.patches.center_samplers import PatchCenterSampler

# A separate stream of random numbers for each use, so that none depends on how much another draws.
_ORDER, _PATCH, _LONE = 0, 1, 2
_SEEDS = 2**32


@dataclass(frozen=True, slots=True)
class PatchSpec:
    """Position and seeds of a random patch.

    Attributes:
        corner: its first voxel along each space axis.
        seed: of the augmentations before batching.
        device_seed: of the augmentations on the device.
    """

    corner: tuple[int, ...]
    seed: int
    device_seed: int


def sample_patch(
    sizes: Sequence[int],
    patch: Sequence[int],
    seed: int,
    epoch: int,
    index: int,
    sampler: PatchCenterSampler | None = None,
    center: Sequence[int] | None = None,
) -> PatchSpec:
    """Sample patch number `index` of an epoch; the result depends only on the arguments.

    Args:
        sizes, patch: voxels of the image and of the patch along the space axes.
        seed: the recipe's.
        epoch, index: from 0.
        sampler: of the centers of some patches of the image, if any.
        center: the center of this patch, if it is known.

    Returns:
        A patch within the image, uniformly distributed; a patch with a center is as near to it as the image allows.
    """
    random = np.random.default_rng((seed, _PATCH, epoch, index))
    around = None if center is None else np.array(center, np.int64)
    if sampler is not None and random.random() < sampler.share:
        around = sampler.sample_center(random)
    if around is None:
        return _sample_uniformly(random, sizes, patch)
    inside = np.clip(around - np.array(patch) // 2, 0, np.array(sizes) - patch)
    return PatchSpec(tuple(map(int, inside)), int(random.integers(_SEEDS)), int(random.integers(_SEEDS)))


def sample_unpaired_patch(
    images: Sequence[Sequence[int]], patch: Sequence[int], stream: int, seed: int, epoch: int, index: int
) -> tuple[int, PatchSpec]:
    """Sample a patch of any of several images; the result depends only on the arguments.

    Args:
        images: voxels of each along the space axes.
        patch, seed, epoch, index: as in `sample_patch`.
        stream: from 0; different streams are independent of each other.

    Returns:
        The number of an image, uniformly distributed, and a patch in it.
    """
    random = np.random.default_rng((seed, _LONE + stream, epoch, index))
    number = int(random.integers(len(images)))
    return number, _sample_uniformly(random, images[number], patch)


def _sample_uniformly(random: np.random.Generator, sizes: Sequence[int], patch: Sequence[int]) -> PatchSpec:
    corner = tuple(int(random.integers(size - length + 1)) for size, length in zip(sizes, patch, strict=True))
    return PatchSpec(corner, int(random.integers(_SEEDS)), int(random.integers(_SEEDS)))


def shuffle_epoch(count: int, seed: int, epoch: int) -> list[int]:
    """Return the numbers 0 to `count` - 1 in the random order of an epoch."""
    order: list[int] = np.random.default_rng((seed, _ORDER, epoch)).permutation(count).tolist()
    return order


def list_grid_corners(sizes: Sequence[int], patch: Sequence[int]) -> list[tuple[int, ...]]:
    """List the corners of patches that cover an image: side by side, the last one along an axis shifted inward.

    Args:
        sizes, patch: voxels of the image and of the patch along the space axes; the patch is not larger than the image.
    """
    starts = [
        [min(i * length, size - length) for i in range(math.ceil(size / length))]
        for size, length in zip(sizes, patch, strict=True)
    ]
    return list(product(*starts))
