"""Samples of an image as the model's tensors: lazy views, with the axes the model names. Nothing is computed here.

xarray's own `expand_dims` reads the image, so the axis that an image lacks is added here, region by region.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.images.lazy import lazy_image
from im2im_zoo.runtime.plan import Plan


class _View:
    """An image at one position of the loops, with its axes in the tensor's order, as a source of regions."""

    def __init__(self, image: xr.DataArray, position: Mapping[str, int], axes: tuple[str, ...]) -> None:
        self._image = image
        self._position = {axis: place for axis, place in position.items() if axis in image.dims}
        self._axes = axes
        self.path = Path(str(image.attrs.get("source", "image")))
        self.shape = tuple(int(image.sizes.get(a, 1)) for a in axes)
        self.dtype = image.dtype

    def read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        region = {a: k for a, k in zip(self._axes, key, strict=True) if a in self._image.dims}
        found = self._image.isel({**self._position, **region})
        left = [a for a in self._axes if a in found.dims]
        values = found.transpose(*left).to_numpy()
        for place, (axis, k) in enumerate(zip(self._axes, key, strict=True)):
            if axis not in self._image.dims and isinstance(k, slice):
                before = sum(1 for k in key[:place] if isinstance(k, slice))
                values = np.expand_dims(values, before)[(slice(None),) * before + (k,)]
        return values


def sample_tensor(plan: Plan, image: xr.DataArray, position: Mapping[str, int]) -> xr.DataArray:
    """The input tensor of one sample, raw, lazy, without its batch axis.

    Args:
        plan: which axes the tensor has.
        image: the image that was planned for.
        position: where on the axes that are looped over.
    """
    axes = tuple(a for a in plan.input_axes if a != "batch")
    tensor = lazy_image(_View(image, position, axes), axes)
    tensor.attrs["source"] = str(image.attrs.get("source", "the image"))
    chunks = image.encoding.get("preferred_chunks") or {}
    tensor.encoding["preferred_chunks"] = {a: chunks.get(a, 1) for a in axes} if chunks else {}
    return tensor


def read_region(tensor: xr.DataArray, region: Mapping[str, slice]) -> xr.DataArray:
    """A region of a lazy tensor in memory; positions in the whole are its coordinates, as processing needs them."""
    part = tensor.isel(region).load()
    places = {str(a): region.get(str(a), slice(0, n)) for a, n in tensor.sizes.items()}
    return part.assign_coords({a: np.arange(s.start, s.stop) for a, s in places.items()})


def mirror(values: NDArray[Any], axis: int, read: slice, outer: slice, size: int) -> NDArray[Any]:
    """What a tile computes, of what was read for it: beyond the image's far end, the image mirrored."""
    if outer == read:
        return values
    positions = np.arange(outer.start, outer.stop)
    period = max(1, 2 * (size - 1))
    positions %= period
    positions = np.where(positions < size, positions, period - positions)
    mirrored: NDArray[Any] = np.take(values, positions - read.start, axis=axis)
    return mirrored
