"""Required halo of a network on a real image, measured by cutting the image.

The receptive field (`radius`, `receptive_field`) is how far a cut can have an effect; far from
a voxel that effect is often negligible.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.networks.cuts import Cut, Run, Tensors, at_most, part, size_along
from im2im_zoo.networks.probe import Array, Call, Grid, as_call
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis
from im2im_zoo.networks.tile_errors import Agreement, ErrorCurve, WholeOutput

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Halo:
    """Measured halo: at `voxels` from a cut, the output differs from the whole image's by `error` at most.

    `voxels` per space axis; `error` and `tolerance` are fractions of the output's range on this image. `sufficient`,
    per axis, is False if the image was too small to show a halo within the tolerance, or no halo is enough (the
    network normalises over its whole input); beyond `voxels` a larger one then helps little.
    """

    voxels: tuple[int, ...]
    error: float
    tolerance: float
    sufficient: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class RequiredHalo:
    """Measured halo of each axis, in voxels of the reference.

    Attributes:
        voxels: halo with which tiles agree with the whole; where `sufficient` is False, beyond which more helps little.
        sufficient: False if the inputs are too small to show a halo that is enough, or none is.
        tried: the largest distance from a cut that the inputs could show.
        error: largest difference from the whole, of the voxels that are kept, as a fraction of what is tolerated there; above
            1 though the halo is sufficient if few enough voxels differ by so much; infinite if nothing could be cut.
    """

    voxels: tuple[int, ...]
    sufficient: tuple[bool, ...]
    tried: tuple[int, ...]
    error: float


def required_halo(
    run: Run, axes: Sequence[NetworkAxis], inputs: Tensors, agree: Sequence[Agreement]
) -> RequiredHalo:
    """Measure the smallest halo with which tiles of some inputs agree with the whole.

    Where the network takes several sizes, the whole is cut at quarters of it. Where it takes one, tiles are as large as the
    whole: they are shifted by a quarter and by half of it, and mirrored beyond its end.

    Args:
        run: the network.
        axes: those along which it may be cut; the inputs are cropped to sizes that it takes along them.
        inputs: preprocessed, one for each input of the network; real ones, as the halo depends on them.
        agree: when two values agree, one for each output.

    Raises:
        PackageError: the network refuses a tile, or its outputs have other sizes than the axes say.
    """
    sizes = [size_along(inputs, axis) for axis in axes]
    if any(size < axis.minimum for size, axis in zip(sizes, axes, strict=True)):
        return _nothing(len(axes))
    cropped = part(inputs, [Cut(a, 0, at_most(a, n)) for a, n in zip(axes, sizes, strict=True)])
    return _needed(WholeOutput(run, cropped, run(list(cropped)), tuple(agree)), axes)


def effective_halo(network: "Call | nn.Module", image: Array, grid: Grid, *, tolerance: float = 1e-3) -> Halo:
    """Measure the smallest halo with which tiles of an image agree with the whole, within a tolerance.

    Args:
        network: in evaluation mode.
        image: (1, channels, *space), preprocessed; its space sizes should be several times the expected halo.
        grid: of the network; the image is cropped to it, and cut at multiples of its step.
        tolerance: largest difference of any voxel, as a fraction of the output's range on the whole image.
    """
    call = as_call(network)

    def run(inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
        return [call(array) for array in inputs if array is not None]

    axes = [
        NetworkAxis(str(i), smallest, step or 1, step == 0, (TensorAxis(2 + i),), (TensorAxis(2 + i),))
        for i, (smallest, step) in enumerate(zip(grid.min, grid.step, strict=True))
    ]
    if any(n < axis.minimum for n, axis in zip(image.shape[2:], axes, strict=True)):
        found = _nothing(len(axes))
    else:
        cropped = part(
            [image], [Cut(a, 0, at_most(a, n)) for a, n in zip(axes, image.shape[2:], strict=True)]
        )
        whole = run(cropped)
        agree = Agreement(relative=0.0, absolute=tolerance * (float(np.ptp(whole[0])) or 1.0))
        found = _needed(WholeOutput(run, cropped, whole, (agree,)), axes)
    return Halo(found.voxels, found.error * tolerance, tolerance, found.sufficient)


def _nothing(axes: int) -> RequiredHalo:
    return RequiredHalo((0,) * axes, (False,) * axes, (0,) * axes, math.inf)


def _needed(whole: WholeOutput, axes: Sequence[NetworkAxis]) -> RequiredHalo:
    sizes = [size_along(whole.inputs, axis) for axis in axes]
    curves = [
        ErrorCurve.merged([whole.curve(cut) for cut in _cuts(axis, size)])
        for axis, size in zip(axes, sizes, strict=True)
    ]
    found = [curve.first_within() for curve in curves]
    halo = [c.flat_from() if h is None else h for c, h in zip(curves, found, strict=True)]
    cuts = [_middle(axis, size, h) for axis, size, h in zip(axes, sizes, halo, strict=True)]
    tile = whole.tile(cuts)
    error, agrees = tile.without(halo)
    while None not in found and not agrees and (larger := _larger(cuts, sizes, halo)) != halo:
        halo = larger  # cuts on all sides add up
        error, agrees = tile.without(halo)
    # An axis that could not be cut has an infinite curve: what the others show is still worth knowing.
    at_halo = [float(c.worst[min(h, len(c.worst) - 1)]) for c, h in zip(curves, halo, strict=True)]
    shown = [e for e in at_halo if np.isfinite(e)]
    error = max([error, *shown]) if shown else math.inf
    sufficient = tuple(h is not None and agrees for h in found)
    return RequiredHalo(tuple(halo), sufficient, tuple(len(c.worst) - 1 for c in curves), error)


def _cuts(axis: NetworkAxis, size: int) -> list[Cut]:
    """Return tiles that are cut on one side; for a network of one size, shifted tiles."""
    quarters = [size * k // 4 for k in (1, 2, 3)]
    begins = sorted({q // axis.step * axis.step for q in quarters} - {0})
    if axis.fixed:
        return [Cut(axis, b, size) for b in begins if 4 * b <= 2 * size]
    # A tile ends at a size that the network takes, which need not be a multiple of the step.
    ends = sorted({at_most(axis, q) for q in quarters} - {size})
    return [Cut(axis, b, size - b) for b in begins if size - b >= axis.minimum] + [
        Cut(axis, 0, e) for e in ends if e < size
    ]


def _middle(axis: NetworkAxis, size: int, halo: int) -> Cut:
    """Return a tile in the middle, cut on both sides if that leaves more than the halo; of one size, shifted by a quarter."""
    if axis.fixed:
        return Cut(axis, size // 4 // axis.step * axis.step, size)
    begin = size // 6 // axis.step * axis.step
    while begin > 0 and size - 2 * begin < max(axis.minimum, 2 * halo + 1):
        begin -= axis.step
    return Cut(axis, begin, size - 2 * begin)


def _larger(tile: Sequence[Cut], sizes: Sequence[int], halo: Sequence[int]) -> list[int]:
    """Return a halo larger by an eighth of a step, or the same along an axis where nothing of the tile would be left."""
    larger = []
    for cut, size, h in zip(tile, sizes, halo, strict=True):
        more = h + -(-cut.axis.step // 8)
        kept = min(cut.begin + cut.size, size) - cut.begin
        larger.append(more if 2 * more < kept else h)
    return larger
