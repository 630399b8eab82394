"""A function for instance segmentation, from maps to labels, with checks of its results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError


@dataclass(frozen=True, slots=True)
class GroupFunction:
    """A segmentation function whose labels are checked.

    Attributes:
        what: name for messages.
        function: called with the maps and `kwargs`.
        kwargs: arguments.
        scale: voxels of the labels per voxel of the maps along (z,) y, x; None for 1.
    """

    what: str
    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    scale: tuple[int, ...] | None = None

    def __call__(self, maps: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        """Segment maps.

        Args:
            maps: (channel, (z,) y, x), read-only for the function.

        Returns:
            Labels ((z,) y, x) of the maps' shape times `scale`; 0 is background.

        Raises:
            PackageError: the function fails, or returns an invalid shape or type.
        """
        maps = maps.view()
        maps.flags.writeable = False
        try:
            labels = np.asarray(self.function(maps, **self.kwargs))
        except Exception as error:
            raise PackageError(
                f"{self.what} failed for maps of shape {maps.shape}: {type(error).__name__}: {error}"
            ) from error
        factors = self.scale or (1,) * (maps.ndim - 1)
        wanted = tuple(n * f for n, f in zip(maps.shape[1:], factors, strict=True))
        if labels.shape != wanted:
            raise PackageError(
                f"{self.what} returned labels of shape {labels.shape} for maps of shape {maps.shape}: it must return {wanted}"
            )
        if labels.dtype.kind not in "iu" or (labels.dtype.kind == "i" and labels.min(initial=0) < 0):
            raise PackageError(
                f"{self.what} returned {labels.dtype} values from {labels.min(initial=0)} on: labels must be integers of 0 or more"
            )
        return labels
