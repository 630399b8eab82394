"""Influence of the voxels on one side of a cut on the output on its other side: one trial of `receptive_field`.

A voxel counts as changed if any bit of it differs. A convolution sums the same numbers in the same
order, so an output that does not depend on replaced voxels keeps every bit. This does not hold for algorithms that
transform blocks of an image (Winograd, FFT), or that sum in no fixed order: with them a few voxels too many change, which
costs time but no exactness, or all. So the extent of changes larger than rounding is measured too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks.cuts import Tensors, starts, stops
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis

# Share of the largest number in an output. Errors of single precision add up to about 1e-6 of it in deep networks.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)
# An effect about as large at the far end as halfway has no end: local ones fall off by orders of magnitude.
_FLAT = 0.5


@dataclass(frozen=True, slots=True)
class Influence:
    """Extent of the changes beyond a cut; distances in voxels of the reference.

    Attributes:
        voxels: largest distance of a change.
        shown: largest distance in the outputs.
        endless: whether there are changes at that distance.
        beyond_rounding: largest distance of a change above rounding; None if endless.
        flat: whether these are about as large at the far end as halfway.
        fading: whether changes at the far end are smaller than halfway, so that they would end further away.
    """

    voxels: int
    shown: int
    endless: bool
    beyond_rounding: int | None
    flat: bool
    fading: bool

    @classmethod
    def union(cls, several: "Sequence[Influence]") -> "Influence":
        """Return the influence in any of several trials."""
        rounded = [f.beyond_rounding for f in several]
        return cls(
            max(f.voxels for f in several),
            min(f.shown for f in several),
            any(f.endless for f in several),
            None if None in rounded else max(r for r in rounded if r is not None),
            any(f.flat for f in several),
            any(f.fading for f in several),
        )


@dataclass(frozen=True, slots=True)
class Side:
    """All voxels before, or after, a position along an axis where a tile may begin, or end."""

    axis: NetworkAxis
    cut: int
    before: bool

    def replaced(self, inputs: Tensors, others: Tensors) -> list[NDArray[Any] | None]:
        """Return the inputs with the voxels of this side taken from others of the same sizes."""
        result: list[NDArray[Any] | None] = []
        for array, other, port in zip(inputs, others, self.axis.inputs, strict=True):
            if array is not None and other is not None and port is not None:
                place = min(max(int(self.cut * port.scale) - port.shift, 0), array.shape[port.dim])
                index = (slice(None),) * port.dim + (slice(place) if self.before else slice(place, None),)
                array = array.copy()
                array[index] = other[index]
            result.append(array)
        return result

    def influence(
        self, plain: Sequence[NDArray[Any]], changed: Sequence[NDArray[Any]], numbers: bool
    ) -> Influence:
        """Return how far the outputs changed on the other side.

        Args:
            plain, changed: the outputs before and after the replacement.
            numbers: whether the replacements are numbers; changes by NaN have no size.

        Raises:
            PackageError: the replacement changed the shape of an output.
        """
        results = []
        for a, b, port in zip(plain, changed, self.axis.outputs, strict=True):
            if a.shape != b.shape:
                raise PackageError(
                    f"an output has the shape {a.shape} for one image and {b.shape} for another of the same size; such a "
                    "network can be run in one tile only"
                )
            results.append(self._influence_in(_changes(a, b), port, numbers))
        return Influence.union(results)

    def _influence_in(self, change: NDArray[np.float64], port: TensorAxis | None, numbers: bool) -> Influence:
        if port is None:
            changes = bool(change.any())
            large = numbers and bool((change > _ROUNDING).any())
            return Influence(0, self.cut, changes, None if large else 0, large, False)
        profile = change.max(axis=tuple(i for i in range(change.ndim) if i != port.dim), initial=0.0)
        voxels = np.arange(len(profile))
        far = stops(port, voxels) - self.cut if self.before else self.cut - starts(port, voxels)
        order = np.argsort(far, kind="stable")
        order = order[far[order] > 0]
        return _influence(far[order], profile[order], numbers)


def _influence(far: NDArray[np.int64], profile: NDArray[np.float64], numbers: bool) -> Influence:
    """Return the influence from the largest change at each of some distances, ascending."""
    if not len(far):
        return Influence(0, 0, True, None, False, False)
    shown = int(far[-1])
    voxels = int(far[profile > 0].max(initial=0))
    if not numbers:
        return Influence(voxels, shown, voxels == shown, 0, False, False)
    rounded = int(far[profile > _ROUNDING].max(initial=0))
    halfway = profile[(far > shown / 4) & (far <= shown / 2)]
    end = float(np.median(profile[far > shown * 7 / 8]))
    level, endless = bool(len(halfway)) and end >= _FLAT * float(np.median(halfway)), voxels == shown
    flat = level and end > _ROUNDING
    return Influence(
        voxels, shown, endless, None if rounded == shown else rounded, flat, endless and not level
    )


def _changes(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """Return differences as fractions of the largest number of both; infinite where a number became NaN."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    largest = max((float(np.abs(x[finite]).max(initial=0.0)) for x in (a, b)), default=0.0) or 1.0
    change = np.full(a.shape, np.inf)
    change[finite] = np.abs(a[finite] - b[finite]) / largest
    change[same] = 0.0
    result: NDArray[np.float64] = change
    return result
