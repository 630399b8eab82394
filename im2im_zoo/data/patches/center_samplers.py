"""Samplers of patch centers: around objects of a label image, or in proportion to weights (foreground, costs)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.data.cache.stored import RegionReader, StoredImage

_BLOCK_BYTES = 64 * 2**20
_CELLS = 2**15


class PatchCenterSampler(Protocol):
    """Sampler of the centers of some patches of an image; `share` is the share of such patches."""

    @property
    def share(self) -> float: ...

    def sample_center(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """Sample a voxel, (axis,); None if the image has nothing to sample."""


@dataclass(frozen=True, slots=True, eq=False)
class ObjectSampler:
    """Uniform sampler of objects, and of a voxel in the box of the object.

    Attributes:
        boxes: as `find_object_boxes` returns them.
        share: of the patches that are drawn around objects.
    """

    boxes: NDArray[np.int64]
    share: float

    def sample_center(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """Sample a voxel in the box of an object; None if there are no objects."""
        if not len(self.boxes):
            return None
        first, behind = self.boxes[random.integers(len(self.boxes))]
        return np.asarray(random.integers(first, behind))


@dataclass(frozen=True, slots=True, eq=False)
class WeightedSampler:
    """Sampler of voxels in proportion to the weight of their cell, uniformly within a cell.

    Attributes:
        cumulative: cumulative weights of the cells in C order, (cell,).
        grid: cells along each axis.
        cell: voxels of a cell along each axis; fewer at the image's far border.
        sizes: voxels of the image.
        share: of the patches that are drawn by weight.
    """

    cumulative: NDArray[np.float64]
    grid: tuple[int, ...]
    cell: tuple[int, ...]
    sizes: tuple[int, ...]
    share: float

    def sample_center(self, random: np.random.Generator) -> NDArray[np.int64] | None:
        """Sample a cell by its weight, and a voxel in it; None if all weights are 0."""
        total = self.cumulative[-1]
        if not total > 0:
            return None
        number = np.searchsorted(self.cumulative, random.random() * total, side="right")
        first = np.array(np.unravel_index(number, self.grid), np.int64) * np.array(self.cell, np.int64)
        return np.asarray(random.integers(first, np.minimum(first + self.cell, self.sizes)))


def find_object_boxes(
    image: StoredImage, shape: Sequence[int], *, block_bytes: int = _BLOCK_BYTES
) -> NDArray[np.int64]:
    """Find the bounding box of each object of a label image, which is read in parts.

    An object is all voxels of one number above 0, in one or several pieces.

    Args:
        image: labels; only the first channel is used.
        shape: its voxels along (z,) y, x.
        block_bytes: about how large a part is, at least one row; the boxes are the same for any size.

    Returns:
        (object, 2, axis): the first voxel along each space axis, and the one behind the last.
    """
    reader = RegionReader()
    step = max(block_bytes // max(4 * math.prod(shape[1:]), 1), 1)
    boxes: dict[float, NDArray[np.int64]] = {}
    for start in range(0, shape[0], step):
        size = min(step, shape[0] - start)
        part = reader.read(image, (start, *(0 for _ in shape[1:])), (size, *shape[1:]))[0]
        numbers, compact = np.unique(part, return_inverse=True)
        for number, place in zip(numbers, ndimage.find_objects(compact.reshape(part.shape) + 1), strict=True):
            box = np.array([[along.start for along in place], [along.stop for along in place]])
            box[:, 0] += start
            before = boxes.get(number, box)
            boxes[number] = np.stack([np.minimum(before[0], box[0]), np.maximum(before[1], box[1])])
    found = [box for number, box in sorted(boxes.items()) if number > 0]
    return np.array(found, np.int64).reshape(-1, 2, len(shape))


def measure_weights(
    image: StoredImage, shape: Sequence[int], share: float, *, foreground: bool
) -> WeightedSampler:
    """Sum the weights of an image in cells; the image is read once, in parts, and a small one has one cell per voxel.

    Args:
        image: a target or a cost map.
        shape: its voxels along (z,) y, x.
        share: of the patches that are drawn by weight.
        foreground: whether the weight of a voxel is 1 where any channel is above 0, else 0; otherwise it is its first channel.
    """
    side = max(1, math.ceil((math.prod(shape) / _CELLS) ** (1 / len(shape))))
    cell = tuple(min(side, size) for size in shape)
    grid = tuple(math.ceil(size / length) for size, length in zip(shape, cell, strict=True))
    sums = np.zeros(grid)
    reader = RegionReader()
    rows = max(_BLOCK_BYTES // max(4 * math.prod(shape[1:]), 1) // cell[0], 1)
    for row in range(0, grid[0], rows):
        start, stop = row * cell[0], min((row + rows) * cell[0], shape[0])
        corner, size = (start, *(0 for _ in shape[1:])), (stop - start, *shape[1:])
        part = reader.read(image, corner, size)
        weight: NDArray[np.float64] = np.asarray((part > 0).any(0) if foreground else part[0], np.float64)
        for axis, length in enumerate(cell):
            weight = np.asarray(np.add.reduceat(weight, range(0, weight.shape[axis], length), axis))
        sums[row : row + len(weight)] = weight
    return WeightedSampler(np.cumsum(sums), grid, cell, tuple(shape), share)
