"""The operation `zero_mean_unit_variance`."""

from typing import ClassVar, Self

from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import Standardization
from im2im_zoo.processing.operations.base import Fitted, Requirement, named_axes


class ZeroMeanUnitVariance(Standardization[v0_5.ZeroMeanUnitVarianceDescr]):
    """Standardization with the mean and the standard deviation of the whole image."""

    id: ClassVar[str] = "zero_mean_unit_variance"

    @classmethod
    def requirements(cls, description: v0_5.ZeroMeanUnitVarianceDescr) -> tuple[Requirement, ...]:
        """Return mean and standard deviation."""
        return (Requirement(named_axes(description.kwargs.axes)),)

    @classmethod
    def bind(cls, description: v0_5.ZeroMeanUnitVarianceDescr, fitted: Fitted) -> Self:
        mean, std = fitted.statistics
        return cls(mean, std + description.kwargs.eps)
