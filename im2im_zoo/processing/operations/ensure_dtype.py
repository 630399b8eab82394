"""The operation `ensure_dtype`."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import tensor_name
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class EnsureDtype(ProcessingOperation[v0_5.EnsureDtypeDescr]):
    """A cast."""

    id: ClassVar[str] = "ensure_dtype"
    dtype: str

    @classmethod
    def bind(cls, description: v0_5.EnsureDtypeDescr, fitted: Fitted) -> Self:
        return cls(description.kwargs.dtype)

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Cast as numpy's astype where that is defined: floats to integers are truncated towards zero.

        Outside the integer's range astype gives whatever the processor does, which differs between machines and
        between vector and scalar code; here the range's ends. NaN has no integer and is refused.
        """
        values, target = np.asarray(x.to_numpy(), order="C"), np.dtype(self.dtype)
        if values.dtype.kind != "f" or target.kind not in "iu":
            # float64 beyond float32 becomes infinity, as in every consumer.
            with np.errstate(over="ignore"):
                return x.copy(data=values.astype(target))
        if np.isnan(values).any():
            raise ProcessingError(
                f"ensure_dtype: tensor {tensor_name(x)} holds NaN, which {self.dtype} cannot: put a scale or clip that "
                "gives finite values before it, or find where the NaN comes from"
            )
        if values.dtype.itemsize < 4:
            values = values.astype(np.float32)
        # The limits below are powers of two (or 0), so exact in any float; the maximum itself often is not.
        low, beyond = values.dtype.type(np.iinfo(target).min), values.dtype.type(2.0 ** _value_bits(target))
        inside = np.clip(values, low, np.nextafter(beyond, low)).astype(target)
        inside[values >= beyond] = np.iinfo(target).max
        return x.copy(data=inside)


def _value_bits(dtype: np.dtype[Any]) -> int:
    return 8 * dtype.itemsize - (dtype.kind == "i")
