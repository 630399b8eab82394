"""The operation `fixed_zero_mean_unit_variance`."""

from typing import ClassVar, Self

import numpy as np
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.operations.arithmetic import Standardization, fixed_numbers
from im2im_zoo.processing.operations.base import Fitted

_LARGEST = float(np.finfo(np.float64).max)


class FixedZeroMeanUnitVariance(Standardization[v0_5.FixedZeroMeanUnitVarianceDescr]):
    """Standardization with a mean and a standard deviation from the description."""

    id: ClassVar[str] = "fixed_zero_mean_unit_variance"

    @classmethod
    def bind(cls, description: v0_5.FixedZeroMeanUnitVarianceDescr, fitted: Fitted) -> Self:
        if np.max(description.kwargs.std) >= _LARGEST:  # the placeholder of recipe.measured
            raise ProcessingError(
                "its mean and standard deviation are left open, and only training measures them: state them"
            )
        # The spec has no eps here (std is at least 1e-6); bioimageio.core 0.11 adds 1e-6.
        return cls(*fixed_numbers(description.kwargs, fitted.image, "mean", "std"))
