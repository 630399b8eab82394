"""The operation `clip`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5
from numpy.typing import NDArray

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.operations.arithmetic import as_floats, values_at
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation, Requirement, named_axes


@dataclass(frozen=True, slots=True, eq=False)
class Clip(ProcessingOperation[v0_5.ClipDescr]):
    """Limits from the description, or percentiles of the whole image; None for a side that has no limit."""

    id: ClassVar[str] = "clip"
    low: xr.DataArray | None
    high: xr.DataArray | None

    @classmethod
    def requirements(cls, description: v0_5.ClipDescr) -> tuple[Requirement, ...]:
        """Return the percentiles, if it has any."""
        kwargs = description.kwargs
        percentiles = (kwargs.min_percentile, kwargs.max_percentile)
        fractions = tuple(p / 100 for p in percentiles if p is not None)
        if not fractions:
            return ()
        axes = named_axes(kwargs.axes)
        # As bioimageio.core: a clip of a sample ends on values that occur in it, of a dataset in between.
        want = Requirement(axes, fractions)
        return (want if want.of_dataset else Requirement(axes, fractions, "inverted_cdf"),)

    @classmethod
    def check(cls, description: v0_5.ClipDescr) -> None:
        """Refuse a lower limit that is not below the upper one."""
        kwargs = description.kwargs
        for low, high in ((kwargs.min, kwargs.max), (kwargs.min_percentile, kwargs.max_percentile)):
            if low is not None and high is not None and low >= high:
                raise ProcessingError(f"its lower limit {low} is not below its upper limit {high}; swap them")

    @classmethod
    def bind(cls, description: v0_5.ClipDescr, fitted: Fitted) -> Self:
        kwargs, percentiles = description.kwargs, iter(fitted.statistics)
        low = next(percentiles) if kwargs.min_percentile is not None else _limit(kwargs.min)
        high = next(percentiles) if kwargs.max_percentile is not None else _limit(kwargs.max)
        return cls(low, high)

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return the limited values. Integers stay integers where the limits are integers of the same dtype."""
        low, high = self.low, self.high
        # Decided by all the limits, not by those of this tile: every tile gets the same dtype.
        limits = [limit for limit in (low, high) if limit is not None]
        stay = x.dtype.kind in "iu" and all(_fit_into(limit.to_numpy(), x.dtype) for limit in limits)
        values = np.asarray(x.to_numpy(), order="C") if stay else as_floats(x)
        if low is not None:
            values = np.maximum(values, values_at(low, x).astype(values.dtype))
        if high is not None:
            values = np.minimum(values, values_at(high, x).astype(values.dtype))
        return x.copy(data=values)


def _limit(value: float | None) -> xr.DataArray | None:
    return None if value is None else xr.DataArray(np.float64(value))


def _fit_into(numbers: NDArray[np.float64], dtype: np.dtype[Any]) -> bool:
    info = np.iinfo(dtype)
    # Below 2^53, beyond which a float64 no longer tells neighbouring integers apart.
    low, high = max(info.min, -(2**53)), min(info.max, 2**53)
    return bool(((numbers == np.trunc(numbers)) & (numbers >= low) & (numbers <= high)).all())
