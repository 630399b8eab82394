"""The operation `scale_range`."""

from typing import ClassVar, Self

from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import Standardization
from im2im_zoo.processing.operations.base import Fitted, Requirement, named_axes


class ScaleRange(Standardization[v0_5.ScaleRangeDescr]):
    """Two percentiles, of the whole image or of a reference tensor, become 0 and 1."""

    id: ClassVar[str] = "scale_range"

    @classmethod
    def requirements(cls, description: v0_5.ScaleRangeDescr) -> tuple[Requirement, ...]:
        """Return the two percentiles."""
        kwargs = description.kwargs
        fractions = (kwargs.min_percentile / 100, kwargs.max_percentile / 100)
        reference = None if kwargs.reference_tensor is None else str(kwargs.reference_tensor)
        return (Requirement(named_axes(kwargs.axes), fractions, reference=reference),)

    @classmethod
    def bind(cls, description: v0_5.ScaleRangeDescr, fitted: Fitted) -> Self:
        lower, upper = fitted.statistics
        return cls(lower, upper - lower + description.kwargs.eps)
