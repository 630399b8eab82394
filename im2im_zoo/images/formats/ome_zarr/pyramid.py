"""Resolution levels and chunks: their shapes, and the reduction of one level to the next. Arrays in, arrays out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName

_SMALLEST = 256
_CHUNK_BYTES = 4 * 2**20
# A z step up to this much coarser than the pixel counts as isotropic, and is halved with it.
_ISOTROPIC = 1.5


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution.

    Attributes:
        shape: voxels.
        factors: voxels of level 0 along each axis for one voxel of this level.
        step: the same, counted in voxels of the level before; 1 or 2.
    """

    shape: tuple[int, ...]
    factors: tuple[int, ...]
    step: tuple[int, ...]


def levels(
    axes: tuple[AxisName, ...], shape: tuple[int, ...], pixel_size_um: Mapping[str, float]
) -> list[Level]:
    """Return level 0 and reduced ones, until y and x are within 256 voxels.

    y and x are halved at each; z only where its step is known not to be much coarser than theirs, so that levels
    become isotropic. An odd size is rounded up.
    """
    ones = (1,) * len(shape)
    found = [Level(shape, ones, ones)]
    while max(n for n, a in zip(found[-1].shape, axes, strict=True) if a in ("y", "x")) > _SMALLEST:
        last = found[-1]
        spacing = {
            a: pixel_size_um[a] * f for a, f in zip(axes, last.factors, strict=True) if a in pixel_size_um
        }
        alike = {"z", "y", "x"} <= set(spacing) and spacing["z"] <= _ISOTROPIC * min(
            spacing["y"], spacing["x"]
        )
        halved = ("z", "y", "x") if alike else ("y", "x")
        step = tuple(2 if a in halved and n > 1 else 1 for a, n in zip(axes, last.shape, strict=True))
        found.append(
            Level(
                tuple(math.ceil(n / s) for n, s in zip(last.shape, step, strict=True)),
                tuple(f * s for f, s in zip(last.factors, step, strict=True)),
                step,
            )
        )
    return found


def halve(block: NDArray[Any], step: tuple[int, ...], *, average: bool) -> NDArray[Any]:
    """Return every `step` voxels as one: their mean (integers rounded), or the first of them.

    Args:
        block: voxels, from an even position on.
        step: 1 or 2 for each axis. Where an axis is odd, the last voxel has no partner.
        average: False keeps values as they are, as labels need.
    """
    if not average:
        return block[tuple(slice(None, None, s) for s in step)]
    # Sums of eight 16-bit integers are exact in float32.
    exact = block.dtype.itemsize <= 2 or block.dtype == np.float32
    mean: NDArray[Any] = block.astype(np.float32 if exact else np.float64, copy=False)
    # The slowest axis first: it halves what the others, whose neighbours lie apart in memory, go through.
    for axis in (a for a in range(block.ndim) if step[a] == 2):
        pairs = mean.shape[axis] // 2
        ahead = (slice(None),) * axis
        even, odd = mean[(*ahead, slice(None, None, 2))], mean[(*ahead, slice(1, None, 2))]
        reduced = np.empty(even.shape, mean.dtype)
        both = (*ahead, slice(0, pairs))
        np.add(even[both], odd, out=reduced[both])
        reduced[both] *= 0.5
        reduced[(*ahead, slice(pairs, None))] = even[(*ahead, slice(pairs, None))]
        mean = reduced
    return (
        np.rint(mean).astype(block.dtype)
        if block.dtype.kind in "iu"
        else mean.astype(block.dtype, copy=False)
    )


def default_chunks(axes: tuple[AxisName, ...], shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return chunks of 1 to 4 MB: 1024 x 1024 planes, or blocks of 64 to 128 where there is depth; channels and times apart."""
    size = dict(zip(axes, shape, strict=True))
    depth = min(size.get("z", 1), 128 if itemsize <= 2 else 64)
    side = math.isqrt(_CHUNK_BYTES // (itemsize * depth))
    plane = min(1024, 2 ** (side.bit_length() - 1))
    wanted = {"z": depth, "y": plane, "x": plane}
    return tuple(max(1, min(n, wanted.get(a, 1))) for a, n in zip(axes, shape, strict=True))
