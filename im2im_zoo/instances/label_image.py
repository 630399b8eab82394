"""The label image of a prediction, into which the labels of each sample are written."""

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
    """The labels of one sample in the image of all samples; picklable if the sink is.

    Attributes:
        sink: writer of regions.
        axes, shape, dtype: of the image.
        space: axes of a sample's labels; along those that the image lacks, the sample has one voxel.
        position: of the sample on the other axes.
        model: name for messages.
    """

    sink: "Sink"
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    space: tuple[str, ...]
    position: Mapping[str, int]
    model: str

    def check(self, objects: int) -> None:
        """Check that the image's type can number all objects.

        Raises:
            PlanError: there are too many objects.
        """
        if objects > np.iinfo(self.dtype).max:
            raise PlanError(
                f"{self.model}: there are {objects} objects, more than {self.dtype} can number; use a larger "
                "--dtype, and start over with --restart"
            )

    def region(self, place: tuple[slice, ...]) -> dict[str, slice]:
        """Return the region of the image that corresponds to a region of the sample."""
        given = dict(zip(self.space, place, strict=True))
        given |= {a: slice(p, p + 1) for a, p in self.position.items()}
        return {a: given[a] for a in self.axes}

    def write(self, place: tuple[slice, ...], labels: NDArray[np.integer[Any]]) -> None:
        """Write the labels of a region of the sample.

        Raises:
            ImageError: the labels cannot be written.
        """
        kept = xr.DataArray(labels, dims=self.space).isel({a: 0 for a in self.space if a not in self.axes})
        block = kept.expand_dims(list(self.position)).transpose(*self.axes).to_numpy()
        self.sink.write(self.region(place), block.astype(self.dtype, copy=False))
