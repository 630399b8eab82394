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

from im2im_zoo.core.axes import SPACE
from im2im_zoo.processing.blocks import regions, walk
from im2im_zoo.processing.checkpoint import NOT_KEPT, Checkpoint
from im2im_zoo.processing.sources import Source, check_finite, kept_sizes, over_kept, whole_sizes

_BRICK = 32
_MAX_BRICKS = 2**18
# Values of bricks that are summed at once.
_AT_ONCE = 2**16


def mean_and_std(
    sources: Sequence[Source],
    reduced: Sequence[str],
    *,
    block_bytes: int,
    checkpoint: Checkpoint = NOT_KEPT,
    max_bricks: int = _MAX_BRICKS,
) -> tuple[xr.DataArray, xr.DataArray]:
    """Mean and population standard deviation over the `reduced` axes of all sources together, in float64.

    Args:
        sources, reduced: see above.
        block_bytes: bound on the memory.
        checkpoint: where the walk over the one source is kept; that over several is not.
        max_bricks: times values along the axes that stay, how many bricks an image is cut into at most; part of what the last bit is.

    Returns:
        Two arrays over the axes that are not reduced, with their positions as integer coordinates.

    Raises:
        ProcessingError: voxels that are not finite, sources that do not fit each other, no voxels.
    """
    kept = kept_sizes(sources, reduced)
    kept_at = checkpoint if len(sources) == 1 else NOT_KEPT
    parts = [_brick_moments(source, kept, reduced, block_bytes, kept_at, max_bricks) for source in sources]
    n = np.concatenate([part[0] for part in parts])
    means = np.concatenate([part[1] for part in parts], axis=-1)
    squares = np.concatenate([part[2] for part in parts], axis=-1)
    total = n.sum()
    mean = (means * n).sum(axis=-1) / total
    spread = means - mean[..., None]
    variance = (squares.sum(axis=-1) + (spread * spread * n).sum(axis=-1)) / total
    return over_kept(kept, sources, mean), over_kept(kept, sources, np.sqrt(variance))


def _brick_shape(sizes: Mapping[str, int], max_bricks: int) -> dict[str, int]:
    """Bricks along the reduced axes. Of the image's shape alone: never of its chunks or the block size."""
    shape = {a: min(size, _BRICK) if a in SPACE else 1 for a, size in sizes.items()}

    def count(axis: str) -> int:
        return -(-sizes[axis] // shape[axis])

    while math.prod(count(a) for a in sizes) > max(1, max_bricks):
        widest = max(sizes, key=count)
        shape[widest] = min(sizes[widest], 2 * shape[widest])
    return shape


def _brick_moments(
    source: Source,
    kept: Mapping[str, int],
    reduced: Sequence[str],
    block_bytes: int,
    checkpoint: Checkpoint,
    max_bricks: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Of each brick: n (bricks,), mean and summed squared deviation (kept axes ..., bricks)."""
    sizes = {a: source.image.sizes[a] for a in reduced}
    brick = _brick_shape(sizes, max_bricks // math.prod(kept.values()))
    grid = tuple(-(-sizes[a] // brick[a]) for a in reduced)
    n = np.ones(())
    for a in reduced:
        lengths = [min(brick[a], sizes[a] - start) for start in range(0, sizes[a], brick[a])]
        n = np.multiply.outer(n, np.array(lengths, dtype=np.float64))
    means, squares = np.zeros((*kept.values(), *grid)), np.zeros((*kept.values(), *grid))
    # Pieces and voxels.
    done = np.zeros(2, np.int64)
    if (known := checkpoint.load()) is not None:
        means, squares, done = known["means"], known["squares"], known["done"]
    grain = {**brick, **whole_sizes(source)}
    for start, piece in walk(source.image, block_bytes=block_bytes, grain=grain, skip=int(done[0])):
        values = source.transform(piece).transpose(*kept, *reduced)
        numbers = values.to_numpy()
        rows = tuple(slice(start[a], start[a] + values.sizes[a]) for a in kept)
        for part in regions({a: values.sizes[a] for a in reduced}, _side_by_side(brick)):
            at = rows + tuple(
                slice((start[a] + p.start) // brick[a], -(-(start[a] + p.stop) // brick[a]))
                for a, p in part.items()
            )
            inside = numbers[(slice(None),) * len(kept) + tuple(part.values())]
            mean, square = _of_bricks(inside, len(kept), brick)
            means[at], squares[at] = mean.reshape(means[at].shape), square.reshape(means[at].shape)
        np.add(done, (1, piece.size), out=done)
        checkpoint.save(lambda: {"means": means, "squares": squares, "done": done})
    check_finite(source, np.isfinite(squares).all())
    shape = (*kept.values(), -1)
    return n.reshape(-1), means.reshape(shape), squares.reshape(shape)


def _side_by_side(brick: Mapping[str, int]) -> dict[str, int]:
    """Some bricks along the last axis: numpy is called for all of them at once, and their values stay in the processor's cache."""
    if not brick:
        return {}
    last = list(brick)[-1]
    return {**brick, last: brick[last] * max(1, _AT_ONCE // math.prod(brick.values()))}


def _of_bricks(
    values: NDArray[Any], kept: int, brick: Mapping[str, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means and summed squared deviations of bricks side by side (kept axes ..., bricks); what is left of the axis is one, too."""
    last = list(brick.values())[-1] if brick else 1
    whole = values.shape[-1] // last
    found = []
    if brick and whole:
        parted = values[..., : whole * last].reshape(*values.shape[:-1], whole, last)
        found.append(_moments(np.moveaxis(parted, -2, kept), kept + 1))
    if not brick or values.shape[-1] % last:
        rest = values[..., whole * last :] if brick else values
        found.append(_moments(np.expand_dims(rest, kept), kept + 1))
    mean, square = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    return mean, square


def _moments(values: NDArray[Any], kept: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and summed squared deviation of each row; contiguous, so that numpy adds in one fixed order."""
    rows = values.astype(np.float64, order="C").reshape(-1, math.prod(values.shape[kept:]))
    # Values that overflow or are not finite are refused once, by name, when all bricks are done.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.sum(axis=1) / rows.shape[1]
        rows -= mean[:, None]
        square = (rows * rows).sum(axis=1)
    return mean.reshape(values.shape[:kept]), square.reshape(values.shape[:kept])
