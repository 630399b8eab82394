"""The label image that a grouping writes: where in it the labels of a sample go. Groups nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError

if TYPE_CHECKING:
    from im2im_zoo.images.sink import Sink


@dataclass(frozen=True, slots=True)
class LabelImage:
    """The labels of one sample within the image of all. It can be sent to other processes if the sink can.

    Attributes:
        sink: what writes regions.
        axes, shape, dtype: of the image.
        space: axes of a sample's labels; the image may lack some, in which the sample then has one voxel.
        position: of the sample on the other axes.
        model: for messages.
    """

    sink: "Sink"
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    space: tuple[str, ...]
    position: Mapping[str, int]
    model: str

    def check(self, objects: int) -> None:
        """Refuse more objects than the type has numbers.

        Raises:
            PlanError: naming both.
        """
        if objects > np.iinfo(self.dtype).max:
            raise PlanError(
                f"{self.model}: there are {objects} objects, more than {self.dtype} has numbers; give a larger "
                "--dtype, and start over with --restart"
            )

    def region(self, place: tuple[slice, ...]) -> dict[str, slice]:
        """The region of the image that a region of the sample is."""
        given = dict(zip(self.space, place, strict=True))
        given |= {a: slice(p, p + 1) for a, p in self.position.items()}
        return {a: given[a] for a in self.axes}

    def write(self, place: tuple[slice, ...], labels: NDArray[np.integer[Any]]) -> None:
        """Write the labels of a region of the sample.

        Raises:
            ImageError: they cannot be written.
        """
        kept = xr.DataArray(labels, dims=self.space).isel({a: 0 for a in self.space if a not in self.axes})
        block = kept.expand_dims(list(self.position)).transpose(*self.axes).to_numpy()
        self.sink.write(self.region(place), block.astype(self.dtype, copy=False))
