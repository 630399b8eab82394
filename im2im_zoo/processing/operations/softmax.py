"""The operation `softmax`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import names, tensor_name
from im2im_zoo.processing.operations.arithmetic import as_floats
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class Softmax(ProcessingOperation[v0_5.SoftmaxDescr]):
    """The softmax function along an axis, of which it needs all voxels."""

    id: ClassVar[str] = "softmax"
    axis: str
    size: int

    @classmethod
    def whole_axes(cls, description: v0_5.SoftmaxDescr, axes: Sequence[str]) -> frozenset[str]:
        """Return its axis."""
        return frozenset({str(description.kwargs.axis)})

    @classmethod
    def bind(cls, description: v0_5.SoftmaxDescr, fitted: Fitted) -> Self:
        axis = str(description.kwargs.axis)
        return cls(axis, fitted.image.sizes[axis])

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return exp(x) over its sum along the axis."""
        axis, size = self.axis, self.size
        if x.sizes.get(axis) != size:
            raise ProcessingError(
                f"softmax along axis {axis!r} needs all its {size} voxels, but tensor {tensor_name(x)} has "
                f"{dict(x.sizes)}: do not cut that axis into tiles"
            )
        at = names(x).index(axis)
        values = as_floats(x)
        values = values - values.max(axis=at, keepdims=True)
        np.exp(values, out=values)
        # Added one by one: numpy's own sum orders the terms by memory layout, and so differs between tiles.
        layers = np.moveaxis(values, at, 0)
        total = layers[0].copy()
        for layer in layers[1:]:
            total += layer
        values /= np.expand_dims(total, at)
        return x.copy(data=values)
