"""Centre normalisation of 3D images: standardised by the planes in the middle of z. Needs numpy alone.

    y = (x - mean) / std        mean, std: over the `chunk_size` planes in the middle of z

for each sample and each channel on its own, over the whole image, never over a tile. In a stack of living cells
the planes in the middle hold the cells; those above and below hold medium, of which a stack may have more or less.

Ounkomol et al., Label-free prediction of three-dimensional fluorescence images from transmitted-light microscopy,
Nature Methods 15, 917-920 (2018), doi:10.1038/s41592-018-0111-2, with 32 planes. The middle of n planes is the plane
n // 2, and the chunk begins half its size before it.
"""

import numpy as np
from numpy.typing import NDArray


class CentreNormalisation:
    """See the file's own text; made by `centre_normalisation`."""

    def __init__(self, axes: str, chunk_size: int) -> None:
        if "z" not in axes or len(set(axes)) != len(axes):
            raise ValueError(
                f"axes {axes!r}: give each axis of the image once, z among them, for example czyx"
            )
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}: give the number of planes, 1 or more")
        self.axes = axes.removeprefix("b")
        self.chunk_size = chunk_size

    def statistics(self, array: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and population standard deviation of the middle, each with the array's axes, of size 1 but for b and c."""
        axes = self._axes_of(array)
        z = axes.index("z")
        planes = array.shape[z]
        size = min(self.chunk_size, planes)
        start = min(max(planes // 2 - size // 2, 0), planes - size)
        chunk = array[(slice(None),) * z + (slice(start, start + size),)]
        over = tuple(i for i, axis in enumerate(axes) if axis not in "bc")
        mean = chunk.mean(axis=over, dtype=np.float64, keepdims=True)
        std = chunk.std(axis=over, dtype=np.float64, keepdims=True)
        return mean, std

    def __call__(self, array: NDArray[np.generic]) -> NDArray[np.float32]:
        """The normalised image, float32, of the same shape. An image whose middle is constant is only shifted."""
        z = self._axes_of(array).index("z")
        mean, std = self.statistics(array)
        std = np.where(std > 0, std, 1.0)
        result = np.empty(array.shape, np.float32)
        # Plane by plane, as the intermediate float64 takes four times the memory of the image.
        for plane in range(array.shape[z]):
            at = (slice(None),) * z + (slice(plane, plane + 1),)
            result[at] = np.subtract(array[at], mean) / std
        return result

    def _axes_of(self, array: NDArray[np.generic]) -> str:
        axes = {len(self.axes): self.axes, len(self.axes) + 1: "b" + self.axes}.get(array.ndim)
        if axes is None:
            raise ValueError(
                f"an image of {array.ndim} axes does not have the axes {self.axes}, or a batch of them"
            )
        return axes


def centre_normalisation(axes: str = "czyx", chunk_size: int = 32) -> CentreNormalisation:
    """The operation, a function of an array.

    Args:
        axes: of the array, as letters; a batch axis b may come first in the array whether it is named or not.
        chunk_size: planes in the middle of z that mean and standard deviation are taken of; a stack that has fewer
            is taken whole.
    """
    return CentreNormalisation(axes, chunk_size)
