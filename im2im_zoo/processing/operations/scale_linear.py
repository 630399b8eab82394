"""The operation `scale_linear`."""

from dataclasses import dataclass
from typing import ClassVar, Self

import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.processing.operations.arithmetic import affine, fixed_numbers
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class ScaleLinear(ProcessingOperation[v0_5.ScaleLinearDescr]):
    """A gain and an offset from the description."""

    id: ClassVar[str] = "scale_linear"
    gain: xr.DataArray
    offset: xr.DataArray

    @classmethod
    def bind(cls, description: v0_5.ScaleLinearDescr, fitted: Fitted) -> Self:
        return cls(*fixed_numbers(description.kwargs, fitted.image, "gain", "offset"))

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return x * gain + offset."""
        return affine(x, self.gain, self.offset)
