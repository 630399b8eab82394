"""Statistics of the voxels of one image, from one streamed pass."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.processing.blocks import walk, working_voxels

_BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class VoxelStatistics:
    """Statistics of all voxels of an image.

    Attributes:
        count: number of voxels.
        lowest, highest: finite value; 0 if there is none.
        at_lowest, at_highest: number of voxels with these values.
        not_finite: number of voxels that are NaN or infinite.
        whole_numbers: whether every finite value is an integer.
        fingerprint: hexadecimal; equal for equal values at equal places, whatever the format and the data type.
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
        """Whether all finite voxels are equal."""
        return self.lowest == self.highest

    @property
    def is_binary(self) -> bool:
        """Whether there are exactly two values."""
        return not self.is_constant and self.at_lowest + self.at_highest == self.count


def measure_voxels(image: xr.DataArray) -> VoxelStatistics:
    """Measure the statistics of an image, which is read once, in blocks of bounded memory.

    Args:
        image: lazy; any axes.
    """
    sizes = {str(axis): size for axis, size in image.sizes.items()}
    weights = _draw_weights(tuple(sizes.items()))
    ends: list[tuple[float, int, float, int]] = []
    not_finite, whole, total = 0, True, 0
    for start, block in _read_blocks(image):
        values = block.astype(np.float64)
        total += _weighted_sum(values, start, weights)
        finite = values[np.isfinite(values)]
        not_finite += values.size - finite.size
        if finite.size:
            whole = whole and bool((finite == np.floor(finite)).all())
            low, high = finite.min(), finite.max()
            ends.append((low, int((finite == low).sum()), high, int((finite == high).sum())))
    lowest = min((low for low, *_ in ends), default=0.0)
    highest = max((high for _, _, high, _ in ends), default=0.0)
    return VoxelStatistics(
        count=int(image.size),
        lowest=float(lowest),
        highest=float(highest),
        at_lowest=sum(n for low, n, _, _ in ends if low == lowest),
        at_highest=sum(n for _, _, high, n in ends if high == highest),
        not_finite=not_finite,
        whole_numbers=whole,
        fingerprint=f"{tuple(sizes.values())}:{total % 2**64:016x}",
    )


def _read_blocks(image: xr.DataArray) -> Iterator[tuple[Mapping[str, int], NDArray[Any]]]:
    """Yield the start and the values of blocks; of a small image, whose coordinates take longer than its voxels, of the whole."""
    if image.size <= working_voxels(_BLOCK_BYTES):
        yield dict.fromkeys(map(str, image.dims), 0), image.to_numpy()
        return
    for start, block in walk(image, block_bytes=_BLOCK_BYTES):
        yield start, block.to_numpy()


@functools.lru_cache(maxsize=4)
def _draw_weights(sizes: tuple[tuple[str, int], ...]) -> dict[str, NDArray[np.uint64]]:
    """Draw fixed random odd numbers along each axis; their product is the weight of a voxel."""
    return {
        axis: np.random.default_rng((number, size)).integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)
        for number, (axis, size) in enumerate(sizes)
    }


def _weighted_sum(
    values: NDArray[np.float64], start: Mapping[str, int], weights: Mapping[str, NDArray[np.uint64]]
) -> int:
    """Sum the bits of the values as integers, weighted by their places, modulo 2**64; independent of the order of blocks."""
    # Adding 0 makes -0 equal to 0. The bits are mixed, because those of small whole numbers end in many zeros.
    bits = (values + 0.0).view(np.uint64)
    made = (bits ^ (bits >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    for axis in reversed(list(weights)):
        place = weights[axis][start[axis] : start[axis] + made.shape[-1]]
        made = made @ place
    return int(made)
