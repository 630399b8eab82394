"""The operation `binarize`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import as_floats, fixed_numbers, values_at
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class Binarize(ProcessingOperation[v0_5.BinarizeDescr]):
    """True where a value is above the threshold."""

    id: ClassVar[str] = "binarize"
    threshold: xr.DataArray

    @classmethod
    def bind(cls, description: v0_5.BinarizeDescr, fitted: Fitted) -> Self:
        return cls(*fixed_numbers(description.kwargs, fitted.image, "threshold"))

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return whether each value is above the threshold."""
        values = as_floats(x)
        return x.copy(data=values > values_at(self.threshold, x).astype(values.dtype))
