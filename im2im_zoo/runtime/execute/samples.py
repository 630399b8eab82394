"""Samples of images as lazy input tensors, with the model's axes, and padded regions of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.images.lazy import arranged_image
from im2im_zoo.processing import Pipeline
from im2im_zoo.processing.blocks import read
from im2im_zoo.runtime.layout.image_layout import InputMap


def sample_tensor(
    axes: Sequence[str],
    image: xr.DataArray,
    position: Mapping[str, int],
    on_read: Callable[[int], None] | None = None,
) -> xr.DataArray:
    """Return the raw, lazy input tensor of one sample, without its batch axis.

    Args:
        axes: of the tensor; `batch` is ignored.
        image: the whole image.
        position: on the looped axes; axes that the image does not have are ignored.
        on_read: called with the number of values of each region that is read.
    """
    names = tuple(a for a in axes if a != "batch")
    tensor = arranged_image(image, names, position, on_read)
    tensor.attrs["source"] = str(image.attrs.get("source", "the image"))
    return tensor


def read_padded(
    tensor: xr.DataArray, region: Mapping[str, slice], before: Pipeline, source: InputMap
) -> NDArray[Any]:
    """Read and preprocess a region of a tensor, padded where it extends beyond the ends.

    Args:
        tensor: of one sample, raw, lazy.
        region: by axis; it may begin below 0 and end after the last voxel.
        before: preprocessing of the sample; it must not mix voxels along an axis that the region cuts.
        source: input with the padding mode. A constant is a raw value, which is preprocessed like the image.
    """
    sizes = {str(a): int(n) for a, n in tensor.sizes.items()}
    taken = {a: padded_positions(region[a], n, source.pad) for a, n in sizes.items()}
    reads = {a: slice(int(t.min()), int(t.max()) + 1) for a, t in taken.items()}
    part = read(tensor, reads)
    values = _take(before(part).to_numpy(), taken, reads, region)
    beyond = {
        a: (np.arange(r.start, r.stop) < 0) | (np.arange(r.start, r.stop) >= sizes[a])
        for a, r in region.items()
    }
    if source.pad != "constant" or not any(b.any() for b in beyond.values()):
        return values
    constant = before(part.copy(data=np.full(part.shape, source.pad_value).astype(part.dtype)))
    filled = _take(constant.to_numpy(), taken, reads, region)
    outside = np.zeros(values.shape, bool)
    for place, axis in enumerate(sizes):
        outside |= beyond[axis].reshape([-1 if i == place else 1 for i in range(values.ndim)])
    return np.where(outside, filled, values)


def padded_positions(region: slice, size: int, mode: str) -> NDArray[np.int64]:
    """Return the index of the voxel at each position of a region that may extend beyond an axis.

    Args:
        region: positions along the axis.
        size: voxels of the axis.
        mode: numpy's `reflect` (mirrored about the last and the first voxel, as often as needed), `symmetric` (mirrored
            about their edges), `edge` or `constant`, both of which repeat the last voxel.
    """
    positions = np.arange(region.start, region.stop)
    if mode in ("edge", "constant") or size == 1:
        return np.clip(positions, 0, size - 1)
    period = 2 * (size - 1) if mode == "reflect" else 2 * size
    positions %= period
    return np.where(positions < size, positions, period - positions - (mode == "symmetric"))


def _take(
    values: NDArray[Any],
    taken: Mapping[str, NDArray[np.int64]],
    reads: Mapping[str, slice],
    region: Mapping[str, slice],
) -> NDArray[Any]:
    for place, (axis, positions) in enumerate(taken.items()):
        if reads[axis] != region[axis]:
            values = np.take(values, positions - reads[axis].start, axis=place)
    return values
