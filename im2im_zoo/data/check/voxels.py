"""What the voxels of one image are like, of one streamed pass over it. Judges nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.processing.blocks import walk

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Voxels:
    """Of all voxels of an image.

    Attributes:
        count: how many there are.
        lowest, highest: of those that are finite; 0 if none is.
        at_lowest, at_highest: how many have these values.
        not_finite: how many are NaN or infinite.
        whole_numbers: whether every finite one is an integer.
        fingerprint: the same for the same values at the same places, whatever the format and the type; hexadecimal.
    """

    count: int
    lowest: float
    highest: float
    at_lowest: int
    at_highest: int
    not_finite: int
    whole_numbers: bool
    fingerprint: str

    @property
    def is_constant(self) -> bool:
        """Whether all finite voxels are alike."""
        return self.lowest == self.highest

    @property
    def is_binary(self) -> bool:
        """Whether there are two values and no more."""
        return not self.is_constant and self.at_lowest + self.at_highest == self.count


def measure_voxels(image: xr.DataArray) -> Voxels:
    """Read an image once, in blocks of bounded memory.

    Args:
        image: lazy; any axes.
    """
    sizes = {str(axis): size for axis, size in image.sizes.items()}
    weights = _weights(sizes)
    ends: list[tuple[float, int, float, int]] = []
    not_finite, whole, total = 0, True, 0
    for start, block in walk(image, block_bytes=_BLOCK_BYTES):
        values = block.to_numpy().astype(np.float64)
        total += _weighted_sum(values, start, weights)
        finite = values[np.isfinite(values)]
        not_finite += values.size - finite.size
        if finite.size:
            whole = whole and bool((finite == np.floor(finite)).all())
            low, high = finite.min(), finite.max()
            ends.append((low, int((finite == low).sum()), high, int((finite == high).sum())))
    lowest = min((low for low, *_ in ends), default=0.0)
    highest = max((high for _, _, high, _ in ends), default=0.0)
    return Voxels(
        count=int(image.size),
        lowest=float(lowest),
        highest=float(highest),
        at_lowest=sum(n for low, n, _, _ in ends if low == lowest),
        at_highest=sum(n for _, _, high, n in ends if high == highest),
        not_finite=not_finite,
        whole_numbers=whole,
        fingerprint=f"{tuple(sizes.values())}:{total % 2**64:016x}",
    )


def _weights(sizes: Mapping[str, int]) -> dict[str, NDArray[np.uint64]]:
    """Fixed random odd numbers along each axis; their product is the weight of a voxel's place."""
    return {
        axis: np.random.default_rng((number, size)).integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)
        for number, (axis, size) in enumerate(sizes.items())
    }


def _weighted_sum(
    values: NDArray[np.float64], start: Mapping[str, int], weights: Mapping[str, NDArray[np.uint64]]
) -> int:
    """The bits of the values as integers, weighted by their places, modulo 2**64: a sum, so blocks come in any order."""
    # Zeros of either sign are alike. The bits are mixed, because those of small whole numbers end in many zeros.
    bits = (values + 0.0).view(np.uint64)
    made = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    for axis in reversed(list(weights)):
        place = weights[axis][start[axis] : start[axis] + made.shape[-1]]
        made = made @ place
    return int(made)
