"""Sizes of images, voxels and objects, from which the size of patches is chosen."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.images import pixel_size_um

# Label images, and voxels of each, that are read to measure objects.
_LABELS_READ = 8
_VOXELS_READ = 2**22
# Quantile of the object sizes.
_MOST_OBJECTS = 0.95


@dataclass(frozen=True, slots=True)
class ImageExtents:
    """Sizes along each space axis, (z,) y, x.

    Attributes:
        smallest: voxels of the smallest image.
        pixel_size: micrometres of a voxel, the median of the images that have it; None if no image has it for all axes.
        objects: 95th percentile of the voxels of an object; None if there are no objects, or they are not known.
    """

    smallest: tuple[int, ...]
    pixel_size: tuple[float, ...] | None = None
    objects: tuple[int, ...] | None = None


def measure_extents(images: Sequence[xr.DataArray], labels: Sequence[xr.DataArray] = ()) -> ImageExtents:
    """Measure the sizes of images, voxels and objects.

    Args:
        images: at least one, lazy, with the axes channel, (z,) y, x; no voxel is read.
        labels: lazy label images; the middle of up to eight is read.
    """
    space = [str(axis) for axis in images[0].dims if axis != "channel"]
    known = [[pixel_size_um(image).get(axis) for axis in space] for image in images]
    complete = [[size for size in sizes if size] for sizes in known if all(sizes)]
    pixel_size = (
        tuple(statistics.median(sizes) for sizes in zip(*complete, strict=True)) if complete else None
    )
    chosen = sorted({int(i) for i in np.linspace(0, len(labels) - 1, min(len(labels), _LABELS_READ))})
    boxes = [box for i in chosen for box in _measure_objects(_read_middle(labels[i]))]
    objects = np.ceil(np.quantile(boxes, _MOST_OBJECTS, axis=0)).astype(int).tolist() if boxes else None
    return ImageExtents(
        tuple(min(image.sizes[axis] for image in images) for axis in space),
        pixel_size,
        None if objects is None else tuple(objects),
    )


def _read_middle(labels: xr.DataArray) -> NDArray[np.generic]:
    """Read the middle of the first channel, of bounded size."""
    first = labels.isel(channel=0)
    part = min(1.0, (_VOXELS_READ / math.prod(first.shape)) ** (1 / first.ndim))
    lengths = {axis: max(1, int(size * part)) for axis, size in first.sizes.items()}
    return first.isel(
        {axis: slice(start := (first.sizes[axis] - n) // 2, start + n) for axis, n in lengths.items()}
    ).to_numpy()


def _measure_objects(labels: NDArray[np.generic]) -> list[list[int]]:
    """Measure the voxels of each object along each axis; objects cut by the border count only if there are no others."""
    numbers, compact = np.unique(labels, return_inverse=True)
    places = ndimage.find_objects(compact.reshape(labels.shape) + 1)
    found = [place for number, place in zip(numbers, places, strict=True) if number > 0]
    whole = [
        place
        for place in found
        if all(along.start > 0 and along.stop < n for along, n in zip(place, labels.shape, strict=True))
    ]
    return [[along.stop - along.start for along in place] for place in whole or found]
