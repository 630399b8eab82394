"""The operation `scale_mean_variance`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import affine, standardize
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation, Requirement, named_axes


@dataclass(frozen=True, slots=True, eq=False)
class ScaleMeanVariance(ProcessingOperation[v0_5.ScaleMeanVarianceDescr]):
    """The tensor gets the mean and the standard deviation of a reference tensor."""

    id: ClassVar[str] = "scale_mean_variance"
    mean: xr.DataArray
    divisor: xr.DataArray
    gain: xr.DataArray
    offset: xr.DataArray

    @classmethod
    def requirements(cls, description: v0_5.ScaleMeanVarianceDescr) -> tuple[Requirement, ...]:
        """Return mean and standard deviation of the tensor, and of the reference."""
        axes = named_axes(description.kwargs.axes)
        return Requirement(axes), Requirement(axes, reference=str(description.kwargs.reference_tensor))

    @classmethod
    def bind(cls, description: v0_5.ScaleMeanVarianceDescr, fitted: Fitted) -> Self:
        mean, std, reference_mean, reference_std = fitted.statistics
        eps = description.kwargs.eps
        return cls(mean, std + eps, reference_std + eps, reference_mean)

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return the standardized tensor with the statistics of the reference."""
        return affine(standardize(x, self.mean, self.divisor), self.gain, self.offset)
