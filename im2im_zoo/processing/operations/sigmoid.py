"""The operation `sigmoid`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import as_floats
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class Sigmoid(ProcessingOperation[v0_5.SigmoidDescr]):
    """The logistic function."""

    id: ClassVar[str] = "sigmoid"

    @classmethod
    def bind(cls, description: v0_5.SigmoidDescr, fitted: Fitted) -> Self:
        return cls()

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return 1 / (1 + exp(-x))."""
        values = np.negative(as_floats(x))
        # exp overflows to infinity where the result is 0 to the last digit.
        with np.errstate(over="ignore"):
            np.exp(values, out=values)
        values += 1
        return x.copy(data=np.divide(1, values, out=values))
