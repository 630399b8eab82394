"""Test and sample tensors of a package: a crop of a real image, and the model's output for it."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.packaging.export.geometry import Geometry
from im2im_zoo.packaging.export.sample import Sample

_MAX_SIZES = {2: (256, 256), 3: (32, 64, 64)}


@dataclass(frozen=True)
class Crop:
    """Crop of a sample; its sizes are on the declared grid."""

    name: str
    input: xr.DataArray
    target: xr.DataArray


def choose_crop(sample: Sample, geometry: Geometry, space: Sequence[str]) -> Crop:
    """Return the part of a sample with the most contrast, of a declared size; y and x differ if possible, to reveal swapped axes.

    An image smaller than the declared minimum is mirrored at its end.
    """
    sizes = {}
    for i, axis in enumerate(space):
        smallest, step = geometry.min[i], geometry.step[i]
        have = min(_MAX_SIZES[len(space)][i], sample.input.sizes[axis])
        sizes[axis] = smallest + (max(0, have - smallest) // step * step if step else 0)
    last, step = space[-1], geometry.step[-1]
    if step and sizes[last] == sizes[space[-2]] and sizes[last] - step >= geometry.min[-1]:
        sizes[last] -= step
    image, target = _pad_to(sample.input, sizes), _pad_to(sample.target, sizes)
    places = [
        [{axis: slice(s, s + n)} for s in sorted({0, (image.sizes[axis] - n) // 2, image.sizes[axis] - n})]
        for axis, n in sizes.items()
    ]
    parts: list[dict[str, slice]] = [
        {k: v for p in place for k, v in p.items()} for place in itertools.product(*places)
    ]
    best = max(parts, key=lambda part: float(image.isel(part).std()))
    return Crop(sample.name, image.isel(best).load(), target.isel(best).load())


def write_test_tensor(path: Path, tensor: xr.DataArray, dtype: str) -> NDArray[Any]:
    """Write a tensor (batch, channel, *space) as `.npy` in C order, and return the written array."""
    array = np.ascontiguousarray(tensor.to_numpy(), dtype=dtype)
    np.save(path, array)
    return array


def write_sample_tensor(path: Path, tensor: NDArray[Any], pixel_size_um: dict[str, float]) -> None:
    """Write a tensor (batch, channel, *space) as a TIFF that any viewer opens: without axes of size one."""
    import tifffile

    axes = ("C" if tensor.shape[1] > 1 else "") + ("ZYX" if tensor.ndim == 5 else "YX")
    array = tensor.reshape(tensor.shape[1 if "C" in axes else 2 :])
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    metadata: dict[str, Any] = {"axes": axes}
    for axis, size in pixel_size_um.items():
        metadata |= {f"PhysicalSize{axis.upper()}": size, f"PhysicalSize{axis.upper()}Unit": "µm"}
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", compression="zlib", metadata=metadata)


def _pad_to(image: xr.DataArray, sizes: dict[str, int]) -> xr.DataArray:
    missing = {a: (0, n - image.sizes[a]) for a, n in sizes.items() if image.sizes[a] < n}
    if not missing:
        return image
    widths = [missing.get(str(a), (0, 0)) for a in image.dims]
    return xr.DataArray(np.pad(image.to_numpy(), widths, mode="reflect"), dims=image.dims, attrs=image.attrs)
