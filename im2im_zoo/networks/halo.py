"""The halo that a network needs on a real image: measured by cutting the image, not deduced from the layers.

The receptive field (`probe`) is where a cut could be felt; what is far from the voxel often weighs next to nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.networks.probe import Array, Call, Grid, as_call

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Halo:
    """What was measured: at `voxels` from a cut, the output differs from the whole image's by `error` at most.

    `voxels` per space axis; `error` and `tolerance` are fractions of the output's range on this image. `sufficient`,
    per axis, is False if the image was too small to show a halo within the tolerance, or no halo is enough (the
    network normalises over all it sees); `voxels` is then from where on a larger one helps little.
    """

    voxels: tuple[int, ...]
    error: float
    tolerance: float
    sufficient: tuple[bool, ...]


def effective_halo(network: "Call | nn.Module", image: Array, grid: Grid, *, tolerance: float = 1e-3) -> Halo:
    """The smallest halo with which tiles of an image give what the whole image gives, within a tolerance.

    Args:
        network: in evaluation mode.
        image: (1, channels, *space), preprocessed; its space sizes should be several times the expected halo.
        grid: of the network; the image is cropped to it, and cut at multiples of its step.
        tolerance: largest difference of any voxel, as a fraction of the output's range on the whole image.
    """
    call = as_call(network)
    space = grid.floor([min(n, image.shape[2 + i]) for i, n in enumerate(image.shape[2:])])
    if any(n > have for n, have in zip(space, image.shape[2:], strict=True)):
        return Halo((0,) * len(space), float("inf"), tolerance, (False,) * len(space))
    image = _part(image, [slice(n) for n in space])
    whole = call(image)
    scale = float(np.ptp(whole)) or 1.0
    curves = [_worst_by_distance(call, image, whole, grid, axis) / scale for axis in range(len(space))]
    found = [_first_within(curve, tolerance) for curve in curves]
    halo = [_flat_from(curve) if h is None else h for curve, h in zip(curves, found, strict=True)]
    tile = _middle(space, grid)
    error = _tile_error(call, image, whole, tile, halo) / scale
    while (
        None not in found
        and error > tolerance
        and all(2 * (h + s) < t.stop - t.start for h, s, t in zip(halo, grid.step, tile, strict=True))
    ):
        halo = [h + s for h, s in zip(halo, grid.step, strict=True)]  # cuts on all sides add up
        error = _tile_error(call, image, whole, tile, halo) / scale
    sufficient = tuple(h is not None and error <= tolerance for h in found)
    if None in found:
        # An axis that could not be cut has an infinite curve: what the others show is still worth knowing.
        shown = [float(c[h]) for c, h in zip(curves, halo, strict=True) if np.isfinite(c[h])]
        error = max([error, *shown]) if shown else float("inf")
    return Halo(tuple(halo), error, tolerance, sufficient)


def _middle(space: Sequence[int], grid: Grid) -> list[slice]:
    """A tile in the middle, cut on all sides where the image has the room for it; starts on the grid."""
    tile = []
    for size, step, smallest in zip(space, grid.step, grid.min, strict=True):
        start = size // 6 // step * step
        tile.append(slice(start, size - start) if size - 2 * start >= smallest else slice(0, size))
    return tile


def _tile_error(
    call: Call, image: Array, whole: NDArray[Any], tile: Sequence[slice], halo: Sequence[int]
) -> float:
    """Largest difference within a tile, less its halo where it is cut; 0 if nothing is left."""
    output = call(_part(image, tile))
    kept = tuple(
        slice(h if t.start else 0, (t.stop - t.start) - (h if t.stop < n else 0))
        for t, h, n in zip(tile, halo, image.shape[2:], strict=True)
    )
    difference = _part(np.abs(output - _part(whole, tile)), kept)
    return float(difference.max()) if difference.size else 0.0


def _worst_by_distance(
    call: Call, image: Array, whole: NDArray[Any], grid: Grid, axis: int
) -> NDArray[np.float64]:
    """Largest difference at any distance >= d from a cut, for d = 0, 1, ..., over several cuts along an axis."""
    size, step, smallest = image.shape[2 + axis], grid.step[axis], grid.min[axis]
    cuts = sorted({size * k // 4 // step * step for k in (1, 2, 3)} - {0})
    curves = []
    for cut in cuts:
        if size - cut >= smallest:
            curves.append(_differences(call, image, whole, axis, slice(cut, size)))
        if cut >= smallest:
            curves.append(_differences(call, image, whole, axis, slice(0, cut))[::-1])
    if not curves:
        return np.full(1, np.inf)  # nowhere to cut: nothing is known
    longest = max(map(len, curves))
    padded = [np.pad(c, (0, longest - len(c))) for c in curves]
    worst: NDArray[np.float64] = np.maximum.accumulate(np.max(padded, axis=0)[::-1])[::-1]
    return worst


def _differences(
    call: Call, image: Array, whole: NDArray[Any], axis: int, part: slice
) -> NDArray[np.float64]:
    index = [slice(None)] * (image.ndim - 2)
    index[axis] = part
    difference = np.abs(call(_part(image, index)) - _part(whole, index)).astype(np.float64)
    others = tuple(i for i in range(difference.ndim) if i != 2 + axis)
    result: NDArray[np.float64] = difference.max(axis=others)
    return result


def _part(array: NDArray[Any], space: Sequence[slice]) -> NDArray[Any]:
    return np.ascontiguousarray(array[(slice(None), slice(None), *space)])


def _first_within(curve: Sequence[float] | NDArray[np.float64], tolerance: float) -> int | None:
    """The first distance from which on the curve stays within the tolerance; None if it never does."""
    within = np.flatnonzero(np.asarray(curve) <= tolerance)
    return int(within[0]) if len(within) else None


def _flat_from(curve: NDArray[np.float64]) -> int:
    """The first distance at which the curve is about as low as it gets three quarters of the way."""
    return _first_within(curve, 1.25 * float(curve[len(curve) * 3 // 4])) or 0
