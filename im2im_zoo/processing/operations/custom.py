"""The operation `custom`: Python code that came with a package or recipe, or one of ours in `processing/custom/`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from bioimageio.spec.model import v0_5

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.released_files import trusted_callables
from im2im_zoo.processing.blocks import names, tensor_name
from im2im_zoo.processing.custom_code import describe_custom, load_callable, source_file
from im2im_zoo.processing.operations.base import Fitted, ProcessingOperation


@dataclass(frozen=True, slots=True, eq=False)
class Custom(ProcessingOperation[v0_5.CustomProcessingDescr]):
    """A function `callable(**kwargs)` of a file, called with the whole tensor in its axes' order."""

    id: ClassVar[str] = "custom"
    name: str
    function: Callable[[Any], Any]

    @classmethod
    def whole_axes(cls, description: v0_5.CustomProcessingDescr, axes: Sequence[str]) -> frozenset[str]:
        """Return all axes: what the function mixes is not known."""
        return frozenset(axes)

    @classmethod
    def bind(cls, description: v0_5.CustomProcessingDescr, fitted: Fitted) -> Self:
        """Load the file and make the function.

        Raises:
            ProcessingError: no consent to code that is not ours, no such file below `root`, another sha256, or code that
                fails.
        """
        name = describe_custom(description)
        factory = load_callable(
            name,
            source_file(description, fitted.root),
            str(description.callable),
            sha256=None if description.sha256 is None else str(description.sha256),
            ours=trusted_callables("operation"),
            allow_code=fitted.allow_code,
        )
        try:
            return cls(name, factory(**description.kwargs))
        except Exception as error:
            raise ProcessingError(
                f"{name} cannot be made with kwargs {description.kwargs}: {error!r}"
            ) from error

    def apply(self, x: xr.DataArray) -> xr.DataArray:
        """Return what the function makes of the tensor: every axis, and the size of all but the channel axis, are kept."""
        # A copy: the code may write into its argument, which belongs to the caller.
        values = np.array(x.to_numpy(), order="C")
        try:
            result = np.asarray(self.function(values))
        except Exception as error:
            raise ProcessingError(
                f"{self.name} failed on tensor {tensor_name(x)} {dict(x.sizes)} {x.dtype}: {error!r}"
            ) from error
        sizes = dict(zip(names(x), result.shape, strict=False))
        if result.ndim != x.ndim or any(sizes[a] != x.sizes[a] for a in names(x) if a != "channel"):
            raise ProcessingError(
                f"{self.name} made shape {result.shape} of {dict(x.sizes)}: it must keep every axis, and the size of "
                "all but the channel axis"
            )
        coords = {name: c for name, c in x.coords.items() if all(sizes[str(d)] == x.sizes[d] for d in c.dims)}
        return xr.DataArray(result, dims=x.dims, coords=coords, name=x.name, attrs=x.attrs)
