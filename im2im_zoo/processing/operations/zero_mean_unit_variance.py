"""The operation `zero_mean_unit_variance`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import standardize
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation, Requirement, named_axes


@dataclass(frozen=True, slots=True, eq=False)
class ZeroMeanUnitVariance(ProcessingOperation[v0_5.ZeroMeanUnitVarianceDescr]):
    """Standardization with the mean and the standard deviation of the whole image."""

    id: ClassVar[str] = "zero_mean_unit_variance"
    mean: xr.DataArray
    divisor: xr.DataArray

    @classmethod
    def requirements(cls, description: v0_5.ZeroMeanUnitVarianceDescr) -> tuple[Requirement, ...]:
        """Return mean and standard deviation."""
        return (Requirement(named_axes(description.kwargs.axes)),)

    @classmethod
    def bind(cls, description: v0_5.ZeroMeanUnitVarianceDescr, fitted: Fitted) -> Self:
        """See `ProcessingOperation`."""
        mean, std = fitted.statistics
        return cls(mean, std + description.kwargs.eps)

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return (x - mean) / (std + eps)."""
        return standardize(x, self.mean, self.divisor)
