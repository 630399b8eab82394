"""Arithmetic that operations share. A tile gets the same bits as the whole image.

Integers of up to 16 bits, bool and float16 are computed in float32, wider ones in float64. Every numpy function used is
elementwise on contiguous arrays and correctly rounded, or (exp) the same for any length, so a tile has the same bits as
the whole image. Numbers that differ along an axis are DataArrays with integer positions, so that a tile which carries
its own positions (an integer coordinate on that axis) gets the numbers of these.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import integer_labels, names, positions, tensor_name
from im2im_zoo.processing.operations.base import D, ProcessingOperation


def standardize(x: xr.DataArray, minus: xr.DataArray, over: xr.DataArray) -> xr.DataArray:
    """Return (x - minus) / over."""
    values = subtract(as_floats(x), values_at(minus, x))
    values /= divisor(values_at(over, x), values.dtype)
    return x.copy(data=values)


@dataclass(frozen=True, eq=False)
class Standardization(ProcessingOperation[D]):
    """Base of the operations (x - minus) / over."""

    minus: xr.DataArray
    over: xr.DataArray

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return (x - minus) / over."""
        return standardize(x, self.minus, self.over)


def affine(x: xr.DataArray, gain: xr.DataArray, offset: xr.DataArray) -> xr.DataArray:
    """Return x * gain + offset."""
    values = as_floats(x)
    values = values * values_at(gain, x).astype(values.dtype)
    values += values_at(offset, x).astype(values.dtype)
    return x.copy(data=values)


def as_floats(x: xr.DataArray) -> NDArray[Any]:
    """Return the values as float32 or float64, C-contiguous (numpy's vector and strided exp differ in the last bit)."""
    values = x.to_numpy()
    return np.ascontiguousarray(values, dtype=np.result_type(values.dtype, np.float32)).reshape(values.shape)


def subtract(values: NDArray[Any], minus: NDArray[np.float64]) -> NDArray[Any]:
    """Return values - minus, in two parts, as float32 would round a mean of 30000 by 0.001 before subtracting it."""
    high = minus.astype(values.dtype)
    result: NDArray[Any] = values - high
    if values.dtype != np.float64:
        result -= (minus - high).astype(values.dtype)
    return result


def divisor(over: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `over`, never rounded to zero: an eps too small for float32 still keeps a constant image at 0."""
    return np.maximum(over, np.finfo(dtype).tiny).astype(dtype)


def fixed_numbers(kwargs: Any, image: xr.DataArray, *names: str) -> list[xr.DataArray]:
    """Return numbers of a description by their names: each is one number, or one for each position along its `axis`.

    Raises:
        ProcessingError: another number of them than the image has positions.
    """
    axis: str | None = getattr(kwargs, "axis", None)
    return [_along(np.asarray(getattr(kwargs, name), dtype=np.float64), axis, image) for name in names]


def _along(numbers: NDArray[np.float64], axis: str | None, image: xr.DataArray) -> xr.DataArray:
    if axis is None:
        return xr.DataArray(numbers)
    if image.sizes[axis] != len(numbers):
        raise ProcessingError(
            f"{len(numbers)} values are given along axis {axis!r}, but tensor {tensor_name(image)} has "
            f"{image.sizes[axis]}: give one value for each"
        )
    return xr.DataArray(numbers, dims=(axis,), coords={axis: positions(image, axis)})


def values_at(numbers: xr.DataArray, x: xr.DataArray) -> NDArray[np.float64]:
    """Return `numbers` in the axis order of `x`, ready to broadcast, at the positions where `x` lies.

    Raises:
        ProcessingError: `x` lacks an axis along which they vary, or lies where there are none.
    """
    values = numbers.to_numpy()
    for i, axis in enumerate(names(numbers)):
        if axis not in x.dims:
            raise ProcessingError(
                f"values that vary along axis {axis!r} do not fit tensor {tensor_name(x)} with axes "
                f"{list(x.dims)}: keep that axis, also if its size is 1"
            )
        values = np.take(values, _indices(numbers, x, axis), axis=i)
    order = [names(numbers).index(a) for a in names(x) if a in numbers.dims]
    shape = tuple(x.sizes[a] if a in numbers.dims else 1 for a in names(x))
    return np.ascontiguousarray(values.transpose(order)).reshape(shape)


def _indices(numbers: xr.DataArray, x: xr.DataArray, axis: str) -> NDArray[np.int64]:
    known, wanted = numbers.coords[axis].to_numpy(), integer_labels(x, axis)
    if wanted is None:
        if x.sizes[axis] == len(known):
            return np.arange(len(known), dtype=np.int64)
        raise ProcessingError(
            f"values vary along axis {axis!r} ({len(known)} of them), and tensor {tensor_name(x)} holds "
            f"{x.sizes[axis]} voxels of it: give the tile an integer coordinate {axis!r}, the position of each "
            "voxel in the whole image, or do not cut that axis"
        )
    order = np.argsort(known)
    found: NDArray[np.int64] = order[np.minimum(np.searchsorted(known, wanted, sorter=order), len(known) - 1)]
    if not np.array_equal(known[found], wanted):
        outside = sorted(set(wanted.tolist()) - set(known.tolist()))
        raise ProcessingError(
            f"tensor {tensor_name(x)} has positions {outside[:5]} along axis {axis!r}, outside the image the "
            f"statistics were taken of ({known.min()} to {known.max()}): give padded voxels the position of the "
            "voxel they repeat"
        )
    return found
