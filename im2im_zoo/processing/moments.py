"""Exact mean and standard deviation of whole lazy images, in one pass of bounded memory.

The image is cut into bricks whose shape depends on the image's shape alone. Each brick gives (n, mean, M2) in
float64, and the bricks are merged in C order by the formula of Chan, Golub & LeVeque (1979), so the result is
the same to the last bit however the image is chunked or walked.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.axes import SPACE
from im2im_zoo.processing.blocks import regions, walk
from im2im_zoo.processing.sources import Source, check_finite, kept_sizes, over_kept, whole_sizes

_BRICK = 32
_MAX_BRICKS = 2**18


def mean_and_std(
    sources: Sequence[Source], reduced: Sequence[str], *, block_bytes: int
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean and population standard deviation over the `reduced` axes of all sources together, in float64.

    Returns:
        Two arrays over the axes that are not reduced, with their positions as integer coordinates.

    Raises:
        ProcessingError: voxels that are not finite, sources that do not fit each other, no voxels.
    """
    kept = kept_sizes(sources, reduced)
    parts = [_brick_moments(source, kept, reduced, block_bytes) for source in sources]
    n = np.concatenate([part[0] for part in parts])
    means = np.concatenate([part[1] for part in parts], axis=-1)
    squares = np.concatenate([part[2] for part in parts], axis=-1)
    total = n.sum()
    mean = (means * n).sum(axis=-1) / total
    spread = means - mean[..., None]
    variance = (squares.sum(axis=-1) + (spread * spread * n).sum(axis=-1)) / total
    return over_kept(kept, sources, mean), over_kept(kept, sources, np.sqrt(variance))


def _brick_shape(sizes: Mapping[str, int], values: int) -> dict[str, int]:
    """Bricks along the reduced axes. Of the image's shape alone: never of its chunks or the block size."""
    shape = {a: min(size, _BRICK) if a in SPACE else 1 for a, size in sizes.items()}

    def count(axis: str) -> int:
        return -(-sizes[axis] // shape[axis])

    while math.prod(count(a) for a in sizes) > max(1, _MAX_BRICKS // values):
        widest = max(sizes, key=count)
        shape[widest] = min(sizes[widest], 2 * shape[widest])
    return shape


def _brick_moments(
    source: Source, kept: Mapping[str, int], reduced: Sequence[str], block_bytes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each brick: n (bricks,), mean and summed squared deviation (kept axes ..., bricks)."""
    sizes = {a: source.image.sizes[a] for a in reduced}
    brick = _brick_shape(sizes, math.prod(kept.values()))
    grid = tuple(-(-sizes[a] // brick[a]) for a in reduced)
    n = np.ones(())
    for a in reduced:
        lengths = [min(brick[a], sizes[a] - start) for start in range(0, sizes[a], brick[a])]
        n = np.multiply.outer(n, np.array(lengths, dtype=np.float64))
    means = np.empty((*kept.values(), *grid))
    squares = np.empty_like(means)
    for start, piece in walk(source.image, block_bytes=block_bytes, grain={**brick, **whole_sizes(source)}):
        values = source.transform(piece).transpose(*kept, *reduced)
        numbers = values.to_numpy()
        rows = tuple(slice(start[a], start[a] + values.sizes[a]) for a in kept)
        for part in regions({a: values.sizes[a] for a in reduced}, brick):
            mean, square = _moments(numbers[(slice(None),) * len(kept) + tuple(part.values())], len(kept))
            at = rows + tuple((start[a] + p.start) // brick[a] for a, p in part.items())
            means[at], squares[at] = mean, square
    check_finite(source, np.isfinite(squares).all())
    shape = (*kept.values(), -1)
    return n.reshape(-1), means.reshape(shape), squares.reshape(shape)


def _moments(values: NDArray[Any], kept: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and summed squared deviation of each row; contiguous, so that numpy adds in one fixed order."""
    rows = values.astype(np.float64, order="C").reshape(-1, math.prod(values.shape[kept:]))
    # Values that overflow or are not finite are refused once, by name, when all bricks are done.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.sum(axis=1) / rows.shape[1]
        rows -= mean[:, None]
        square = (rows * rows).sum(axis=1)
    return mean.reshape(values.shape[:kept]), square.reshape(values.shape[:kept])
