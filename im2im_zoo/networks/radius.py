"""Measures how far an input voxel of a network reaches. Knows no layer by name.

How much of that matters on a real image is measured in `halo`.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from im2im_zoo.networks.probe import Call, Grid, as_call, noise, with_size

if TYPE_CHECKING:
    from torch import nn

_VOXELS = 2**20  # of the longest image that is tried, if it is longer than _LENGTH
_LENGTH = 1024


def receptive_field_radius(
    network: "Call | nn.Module", channels: int, grid: Grid, *, limit: int = 2048
) -> tuple[int, ...] | None:
    """How far an input voxel reaches, in voxels along each space axis; None if it reaches everywhere.

    A voxel that is not a number makes all that depends on it not a number; where that ends is the radius. It
    depends on where the voxel lies in the pooling windows: the largest over all such places is returned. Instance
    normalisation, global pooling and attention reach everywhere, whatever the size.

    Args:
        network: in evaluation mode. torch keeps NaN through every layer, ONNX Runtime does not: probe the module.
        channels: of its input.
        grid: of `step_grid`.
        limit: the longest image that is tried, voxels (1024 where a longer one is large: in 3D, across 32 x 32 or more);
            a radius that does not fit counts as everywhere.
    """
    call = as_call(network)
    radii: list[int] = []
    for axis in range(len(grid.min)):
        radius = _radius(call, channels, grid, axis, limit)
        if radius is None:
            return None  # one that is slow to find, and says all
        radii.append(radius)
    return tuple(radii)


def _radius(call: Call, channels: int, grid: Grid, axis: int, limit: int) -> int | None:
    if grid.step[axis] == 0:
        return _radius_within(call, channels, grid, axis)
    step, length = grid.step[axis], max(64, 2 * grid.min[axis])
    across = math.prod(grid.min) // grid.min[axis]
    longest = max(limit if limit * across <= _VOXELS else min(limit, _LENGTH), 2 * grid.min[axis])
    while length <= longest:
        size = -(-length // step) * step
        centre = size // 2 // step * step
        radii = []
        for place in range(centre, centre + step):
            image = noise(channels, with_size(grid.min, axis, size))
            np.moveaxis(image, 2 + axis, -1)[..., place] = np.nan
            output = np.moveaxis(call(image), 2 + axis, -1)
            reached = np.flatnonzero(np.isnan(output).any(axis=tuple(range(output.ndim - 1))))
            if len(reached) and (reached[0] == 0 or reached[-1] == size - 1):
                break  # it may reach further than this image shows
            radii += [abs(int(r) - place) for r in (reached[[0, -1]] if len(reached) else [])]
        else:
            return max(radii, default=0)
        length *= 2
    return None


def _radius_within(call: Call, channels: int, grid: Grid, axis: int) -> int | None:
    """As `_radius`, of a network of one size: from the middle of it, and everywhere if that reaches an end."""
    size = grid.min[axis]
    image = noise(channels, grid.min)
    np.moveaxis(image, 2 + axis, -1)[..., size // 2] = np.nan
    output = np.moveaxis(call(image), 2 + axis, -1)
    reached = np.flatnonzero(np.isnan(output).any(axis=tuple(range(output.ndim - 1))))
    if not len(reached):
        return 0
    first, last = int(reached[0]), int(reached[-1])
    return None if first == 0 or last == size - 1 else max(size // 2 - first, last - size // 2)
