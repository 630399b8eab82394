"""The operations of the bioimage.io model spec 0.5, one function each. Neither statistics nor files are read here.

An operation becomes a `Step`: a pure function of a tensor, with its numbers bound. Numbers that differ along
an axis are DataArrays with integer positions, so that a tile which says where it lies (an integer coordinate
on that axis) gets its own.

Numbers: integers of up to 16 bits, bool and float16 are computed in float32, wider ones in float64. Every
numpy function used is elementwise on contiguous arrays and correctly rounded, or (exp) the same for any
length, so a tile has the same bits as the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import integer_labels, names, positions, tensor_name

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

    from im2im_zoo.processing.requirements import Operation


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, ready to run. `whole_axes`: axes along which it mixes voxels; a tile must not cut them."""

    operation: str
    apply: Callable[[xr.DataArray], xr.DataArray]
    whole_axes: frozenset[str] = frozenset()

    def __call__(self, tensor: xr.DataArray) -> xr.DataArray:
        return self.apply(tensor)


def build_step(operation: Operation, statistics: Sequence[xr.DataArray], image: xr.DataArray) -> Step:
    """The step of any operation but `custom`.

    Args:
        operation: as described in a recipe or an RDF.
        statistics: those of `requirements(operation)`, flattened in that order.
        image: the whole (lazy) tensor; only its axes, sizes and positions are looked at.

    Raises:
        ProcessingError: numbers that do not fit the image's axes.
    """
    build = _BUILDERS[operation.id]
    function: Callable[[xr.DataArray], xr.DataArray] = build(operation.kwargs, statistics, image)
    whole = frozenset({str(operation.kwargs.axis)}) if operation.id == "softmax" else frozenset[str]()
    return Step(operation.id, function, whole)


def _binarize(
    kwargs: v0_5.BinarizeKwargs | v0_5.BinarizeAlongAxisKwargs,
    statistics: Sequence[xr.DataArray],
    image: xr.DataArray,
) -> partial[xr.DataArray]:
    return partial(_above, threshold=_fixed(kwargs.threshold, getattr(kwargs, "axis", None), image))


def _clip(
    kwargs: v0_5.ClipKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    percentiles = iter(statistics)
    low = next(percentiles) if kwargs.min_percentile is not None else _optional(kwargs.min)
    high = next(percentiles) if kwargs.max_percentile is not None else _optional(kwargs.max)
    return partial(_limit, low=low, high=high)


def _ensure_dtype(
    kwargs: v0_5.EnsureDtypeKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    return partial(_cast, dtype=kwargs.dtype)


def _scale_linear(
    kwargs: v0_5.ScaleLinearKwargs | v0_5.ScaleLinearAlongAxisKwargs,
    statistics: Sequence[xr.DataArray],
    image: xr.DataArray,
) -> partial[xr.DataArray]:
    axis = getattr(kwargs, "axis", None)
    return partial(
        _times_plus, gain=_fixed(kwargs.gain, axis, image), offset=_fixed(kwargs.offset, axis, image)
    )


def _sigmoid(
    kwargs: object, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    return partial(_logistic)


def _softmax(
    kwargs: v0_5.SoftmaxKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    return partial(_exponential_shares, axis=str(kwargs.axis), size=image.sizes[str(kwargs.axis)])


def _fixed_zero_mean_unit_variance(
    kwargs: v0_5.FixedZeroMeanUnitVarianceKwargs | v0_5.FixedZeroMeanUnitVarianceAlongAxisKwargs,
    statistics: Sequence[xr.DataArray],
    image: xr.DataArray,
) -> partial[xr.DataArray]:
    # The spec has no eps here (std is at least 1e-6); bioimageio.core 0.11 adds 1e-6.
    axis = getattr(kwargs, "axis", None)
    return partial(_minus_over, minus=_fixed(kwargs.mean, axis, image), over=_fixed(kwargs.std, axis, image))


def _zero_mean_unit_variance(
    kwargs: v0_5.ZeroMeanUnitVarianceKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    mean, std = statistics
    return partial(_minus_over, minus=mean, over=std + kwargs.eps)


def _scale_range(
    kwargs: v0_5.ScaleRangeKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    lower, upper = statistics
    return partial(_minus_over, minus=lower, over=upper - lower + kwargs.eps)


def _scale_mean_variance(
    kwargs: v0_5.ScaleMeanVarianceKwargs, statistics: Sequence[xr.DataArray], image: xr.DataArray
) -> partial[xr.DataArray]:
    mean, std, ref_mean, ref_std = statistics
    return partial(_match, minus=mean, over=std + kwargs.eps, gain=ref_std + kwargs.eps, offset=ref_mean)


_BUILDERS: dict[str, Callable[[Any, Sequence[xr.DataArray], xr.DataArray], partial[xr.DataArray]]] = {
    "binarize": _binarize,
    "clip": _clip,
    "ensure_dtype": _ensure_dtype,
    "fixed_zero_mean_unit_variance": _fixed_zero_mean_unit_variance,
    "scale_linear": _scale_linear,
    "scale_mean_variance": _scale_mean_variance,
    "scale_range": _scale_range,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "zero_mean_unit_variance": _zero_mean_unit_variance,
}


def _above(x: xr.DataArray, threshold: xr.DataArray) -> xr.DataArray:
    values = _floats(x)
    return x.copy(data=values > _along(threshold, x).astype(values.dtype))


def _limit(x: xr.DataArray, low: xr.DataArray | None, high: xr.DataArray | None) -> xr.DataArray:
    """Integers stay integers where the limits are integers of the same dtype."""
    # Decided by all the limits, not by those of this tile: every tile gets the same dtype.
    limits = [limit for limit in (low, high) if limit is not None]
    stay = x.dtype.kind in "iu" and all(_fit_into(limit.to_numpy(), x.dtype) for limit in limits)
    values = np.asarray(x.to_numpy(), order="C") if stay else _floats(x)
    if low is not None:
        values = np.maximum(values, _along(low, x).astype(values.dtype))
    if high is not None:
        values = np.minimum(values, _along(high, x).astype(values.dtype))
    return x.copy(data=values)


def _fit_into(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> bool:
    info = np.iinfo(dtype)
    # Below 2^53, beyond which a float64 no longer tells neighbouring integers apart.
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    return bool(((numbers == np.trunc(numbers)) & (numbers >= low) & (numbers <= high)).all())


def _times_plus(x: xr.DataArray, gain: xr.DataArray, offset: xr.DataArray) -> xr.DataArray:
    values = _floats(x)
    values = values * _along(gain, x).astype(values.dtype)
    values += _along(offset, x).astype(values.dtype)
    return x.copy(data=values)


def _logistic(x: xr.DataArray) -> xr.DataArray:
    values = np.negative(_floats(x))
    # exp overflows to infinity where the result is 0 to the last digit.
    with np.errstate(over="ignore"):
        np.exp(values, out=values)
    values += 1
    return x.copy(data=np.divide(1, values, out=values))


def _exponential_shares(x: xr.DataArray, axis: str, size: int) -> xr.DataArray:
    if x.sizes.get(axis) != size:
        raise ProcessingError(
            f"softmax along axis {axis!r} needs all its {size} voxels, but tensor {tensor_name(x)} has "
            f"{dict(x.sizes)}: do not cut that axis into tiles"
        )
    at = names(x).index(axis)
    values = _floats(x)
    values = values - values.max(axis=at, keepdims=True)
    np.exp(values, out=values)
    # Added one by one: numpy's own sum orders the terms by memory layout, and so differs between tiles.
    layers = np.moveaxis(values, at, 0)
    total = layers[0].copy()
    for layer in layers[1:]:
        total += layer
    values /= np.expand_dims(total, at)
    return x.copy(data=values)


def _minus_over(x: xr.DataArray, minus: xr.DataArray, over: xr.DataArray) -> xr.DataArray:
    values = _subtract(_floats(x), _along(minus, x))
    values /= _divisor(_along(over, x), values.dtype)
    return x.copy(data=values)


def _match(
    x: xr.DataArray, minus: xr.DataArray, over: xr.DataArray, gain: xr.DataArray, offset: xr.DataArray
) -> xr.DataArray:
    return _times_plus(_minus_over(x, minus, over), gain, offset)


def _cast(x: xr.DataArray, dtype: str) -> xr.DataArray:
    """As numpy's astype where that is defined: floats to integers are truncated towards zero.

    Outside the integer's range astype gives whatever the processor does, which differs between machines and
    between vector and scalar code; here the range's ends. NaN has no integer and is refused.
    """
    values, target = np.asarray(x.to_numpy(), order="C"), np.dtype(dtype)
    if values.dtype.kind != "f" or target.kind not in "iu":
        # float64 beyond float32 becomes infinity, as in every consumer.
        with np.errstate(over="ignore"):
            return x.copy(data=values.astype(target))
    if np.isnan(values).any():
        raise ProcessingError(
            f"ensure_dtype: tensor {tensor_name(x)} holds NaN, which {dtype} cannot: put a scale or clip that "
            "gives finite values before it, or find where the NaN comes from"
        )
    if values.dtype.itemsize < 4:
        values = values.astype(np.float32)
    # The limits below are powers of two (or 0), so exact in any float; the maximum itself often is not.
    low, beyond = values.dtype.type(np.iinfo(target).min), values.dtype.type(2.0 ** _value_bits(target))
    inside = np.clip(values, low, np.nextafter(beyond, low)).astype(target)
    inside[values >= beyond] = np.iinfo(target).max
    return x.copy(data=inside)


def _value_bits(dtype: np.dtype[Any]) -> int:
    return 8 * dtype.itemsize - (dtype.kind == "i")


def _floats(x: xr.DataArray) -> NDArray[Any]:
    """The values as float32 or float64, C-contiguous (numpy's vector and strided exp differ in the last bit)."""
    values = x.to_numpy()
    return np.ascontiguousarray(values, dtype=np.result_type(values.dtype, np.float32)).reshape(values.shape)


def _subtract(values: NDArray[Any], minus: NDArray[np.float64]) -> NDArray[Any]:
    """values - minus. In two parts, as float32 would round a mean of 30000 by 0.001 before subtracting it."""
    high = minus.astype(values.dtype)
    result: NDArray[Any] = values - high
    if values.dtype != np.float64:
        result -= (minus - high).astype(values.dtype)
    return result


def _divisor(over: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Never rounded to zero: an eps too small for float32 still keeps a constant image at 0."""
    return np.maximum(over, np.finfo(dtype).tiny).astype(dtype)


def _optional(value: float | None) -> xr.DataArray | None:
    return None if value is None else xr.DataArray(np.float64(value))


def _fixed(value: float | Sequence[float], axis: str | None, image: xr.DataArray) -> xr.DataArray:
    """Numbers from the description: one, or one for each position along `axis`."""
    numbers = np.asarray(value, dtype=np.float64)
    if axis is None:
        return xr.DataArray(numbers)
    if image.sizes[axis] != len(numbers):
        raise ProcessingError(
            f"{len(numbers)} values are given along axis {axis!r}, but tensor {tensor_name(image)} has "
            f"{image.sizes[axis]}: give one value for each"
        )
    return xr.DataArray(numbers, dims=(axis,), coords={axis: positions(image, axis)})


def _along(numbers: xr.DataArray, x: xr.DataArray) -> NDArray[np.float64]:
    """`numbers` in the axis order of `x`, ready to broadcast, taken at the positions where `x` lies."""
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
