"""Sizes at which exported weights are compared with the network, and the difference of two outputs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.networks import Grid

TOLERANCE = 1e-4  # of the largest output


def check_sizes(grid: Grid) -> list[tuple[int, tuple[int, ...]]]:
    """Return the batch sizes and space sizes at which a format is checked: the smallest, larger ones, and non-square ones."""
    if not any(grid.step):
        return [(1, grid.min), (2, grid.min)]
    return [
        (1, grid.min),
        (2, tuple(m + s for m, s in zip(grid.min, grid.step, strict=True))),
        (
            1,
            tuple(
                m + (3 if i % 2 else 1) * s for i, (m, s) in enumerate(zip(grid.min, grid.step, strict=True))
            ),
        ),
        (
            1,
            tuple(
                m + (0 if i % 2 else 3) * s for i, (m, s) in enumerate(zip(grid.min, grid.step, strict=True))
            ),
        ),
    ]


def difference(result: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference as a fraction of the largest expected value; infinite for another shape or NaN."""
    if result.shape != expected.shape:
        return float("inf")
    worst = float(np.abs(result.astype(np.float64) - expected).max(initial=0.0))
    return worst / (float(np.abs(expected).max(initial=0.0)) or 1.0) if np.isfinite(worst) else float("inf")


def example_input(batch: int, image: NDArray[Any], space: Sequence[int]) -> NDArray[np.float32]:
    """Return a fixed random input (batch, channel, *space) with the mean and the deviation of each channel of an image.

    Args:
        batch: number of images.
        image: an input of the network (batch, channel, *space).
        space: sizes of the space axes.
    """
    across = (0, *range(2, image.ndim))
    mean = image.mean(axis=across, dtype=np.float64)
    deviation = image.std(axis=across, dtype=np.float64)
    shape = (1, -1, *(1,) * len(space))
    noise = np.random.default_rng(1).normal(size=(batch, image.shape[1], *space))
    scaled = noise * np.where(deviation > 0, deviation, 1.0).reshape(shape) + mean.reshape(shape)
    return np.asarray(scaled, dtype=np.float32)
