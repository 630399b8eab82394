"""The operation `fixed_zero_mean_unit_variance`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import fixed_numbers, standardize
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class FixedZeroMeanUnitVariance(ProcessingOperation[v0_5.FixedZeroMeanUnitVarianceDescr]):
    """Standardization with a mean and a standard deviation from the description."""

    id: ClassVar[str] = "fixed_zero_mean_unit_variance"
    mean: xr.DataArray
    std: xr.DataArray

    @classmethod
    def bind(cls, description: v0_5.FixedZeroMeanUnitVarianceDescr, fitted: Fitted) -> Self:
        """See `ProcessingOperation`."""
        # The spec has no eps here (std is at least 1e-6); bioimageio.core 0.11 adds 1e-6.
        kwargs = description.kwargs
        axis = getattr(kwargs, "axis", None)
        return cls(
            fixed_numbers(kwargs.mean, axis, fitted.image), fixed_numbers(kwargs.std, axis, fitted.image)
        )

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return (x - mean) / std."""
        return standardize(x, self.mean, self.std)
