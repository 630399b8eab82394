"""Measurement of the receptive-field radius of a torch module, without knowledge of its layers.

How much of it matters on a real image is measured in `halo`.
"""

import math
from typing import TYPE_CHECKING

import numpy as np

from im2im_zoo.networks.probe import Call, Grid, as_call, noise, with_size

if TYPE_CHECKING:
    from torch import nn

_VOXELS = 2**20  # of the longest image that is tried, if longer than _LENGTH
_LENGTH = 1024


def receptive_field_radius(
    network: "Call | nn.Module", channels: int, grid: Grid, *, limit: int = 2048
) -> tuple[int, ...] | None:
    """Measure how far an input voxel has an effect, in voxels along each space axis; None if everywhere.

    A NaN voxel makes everything that depends on it NaN; the extent of that is the radius. It depends on the position of
    the voxel in the pooling windows: the largest over all positions is returned. With instance normalisation, global
    pooling or attention a voxel has an effect everywhere.

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
            return None  # one such axis is slow to measure, and decides for all
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
                break  # the effect may extend beyond this image
            radii += [abs(int(r) - place) for r in (reached[[0, -1]] if len(reached) else [])]
        else:
            return max(radii, default=0)
        length *= 2
    return None


def _radius_within(call: Call, channels: int, grid: Grid, axis: int) -> int | None:
    """Measure the radius of a network of one size from its middle; None if the effect extends to an end."""
    size = grid.min[axis]
    image = noise(channels, grid.min)
    np.moveaxis(image, 2 + axis, -1)[..., size // 2] = np.nan
    output = np.moveaxis(call(image), 2 + axis, -1)
    reached = np.flatnonzero(np.isnan(output).any(axis=tuple(range(output.ndim - 1))))
    if not len(reached):
        return 0
    first, last = int(reached[0]), int(reached[-1])
    return None if first == 0 or last == size - 1 else max(size // 2 - first, last - size // 2)
