"""The function of a grouping, checked: maps of a whole image in, labels out. Where it comes from is not said here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError


@dataclass(frozen=True, slots=True)
class GroupFunction:
    """Calls a function of maps and checks what it gives; `what` names it in messages.

    `scale`: voxels of the labels for one of the maps along (z,) y, x; None where there are as many.
    """

    what: str
    function: Callable[..., Any]
    kwargs: Mapping[str, Any]
    scale: tuple[int, ...] | None = None

    def __call__(self, maps: NDArray[np.float32]) -> NDArray[np.integer[Any]]:
        """The labels ((z,) y, x), 0 background, of maps (channel, (z,) y, x), which the function may not write into.

        They have the maps' shape, times `scale`.

        Raises:
            PackageError: the function fails, or gives no labels of that shape.
        """
        maps = maps.view()
        maps.flags.writeable = False
        try:
            labels = np.asarray(self.function(maps, **self.kwargs))
        except Exception as error:
            raise PackageError(
                f"{self.what} failed on maps of shape {maps.shape}: {type(error).__name__}: {error}"
            ) from error
        factors = self.scale or (1,) * (maps.ndim - 1)
        wanted = tuple(n * f for n, f in zip(maps.shape[1:], factors, strict=True))
        if labels.shape != wanted:
            raise PackageError(
                f"{self.what} made labels of shape {labels.shape} of maps of shape {maps.shape}: it must give {wanted}"
            )
        if labels.dtype.kind not in "iu" or (labels.dtype.kind == "i" and labels.min(initial=0) < 0):
            raise PackageError(
                f"{self.what} made {labels.dtype} values from {labels.min(initial=0)}: labels are integers, 0 and above"
            )
        return labels
