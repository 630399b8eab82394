"""A scene of instances that are known, maps that say all of it, and a package that passes maps on."""

import hashlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from groupings_for_tests import with_grouping
from numpy.typing import NDArray
from packages_for_tests import build_package
from scipy import ndimage
from torch import nn

from im2im_zoo.instances.blockwise.order import renumber
from im2im_zoo.instances.methods import components, embedseg, watershed
from im2im_zoo.package import Package

# Any other method: it numbers as it likes, with gaps.
BACKWARDS = """
from scipy import ndimage
import numpy as np

def group(maps):
    labels, count = ndimage.label(maps[0] > 0.5)
    return np.where(labels > 0, 3 * (count - labels + 1), 0)
"""


class Passing(nn.Module):
    """Its output is its input, by a convolution that sees one voxel around."""

    def __init__(self, channels: int, ndim: int) -> None:
        super().__init__()
        make = nn.Conv2d if ndim == 2 else nn.Conv3d
        self.conv = make(channels, channels, 3, padding=1, groups=channels, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()[(slice(None), 0, *(1,) * ndim)] = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def scene(shape: Sequence[int]) -> NDArray[np.int32]:
    """Objects that touch, nest, reach from end to end, and have several parts; their places scale with the shape."""
    ndim = len(shape)
    at = [g / n for g, n in zip(np.indices(shape), shape, strict=True)]
    y, x = at[-2:]
    deep = at[0] if ndim == 3 else np.full(shape, 0.5)
    labels = np.zeros(shape, np.int32)
    # A serpent through the whole image, and what lies in its bends.
    labels[(y > 0.06) & (y < 0.14) & (x > 0.03) & (x < 0.97)] = 1
    labels[(y > 0.06) & (y < 0.94) & (x > 0.9) & (x < 0.97)] = 1
    labels[(y > 0.87) & (y < 0.94) & (x > 0.1) & (x < 0.97)] = 1
    # Two that touch along a face.
    labels[(y > 0.2) & (y < 0.45) & (x > 0.05) & (x < 0.2)] = 2
    labels[(y > 0.2) & (y < 0.45) & (x >= 0.2) & (x < 0.37)] = 3
    # A ring, and one within it, which touches it on all sides.
    far = np.sqrt(((y - 0.55) / 0.25) ** 2 + ((x - 0.62) / 0.22) ** 2)
    labels[far < 1], labels[far < 0.45] = 4, 5
    # One of three parts.
    labels[(y > 0.55) & (y < 0.8) & (x > 0.05) & (x < 0.15)] = 6
    labels[(y > 0.6) & (y < 0.7) & (x > 0.22) & (x < 0.3)] = 6
    labels[(y > 0.75) & (y < 0.82) & (x > 0.25) & (x < 0.3)] = 6
    labels[(deep < 0.1) | (deep > 0.9)] = 0
    # Specks, wherever nothing else is.
    free = ndimage.binary_erosion(labels == 0, iterations=2)
    specks = free & (np.indices(shape)[-2] % 7 == 3) & (np.indices(shape)[-1] % 6 == 2)
    specks &= True if ndim == 2 else np.indices(shape)[0] % 5 == 2
    labels[specks] = 7 + np.arange(np.count_nonzero(specks))
    return labels


def parts(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each part of an object as one of its own."""
    found = np.zeros_like(labels)
    for number in range(1, labels.max() + 1):
        pieces, _ = ndimage.label(labels == number)
        found[pieces > 0] = found.max() + pieces[pieces > 0]
    return found


def embedding_of(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Each voxel points at its object's first voxel, which is the surest."""
    maps = np.ones((2 * labels.ndim + 1, *labels.shape), np.float32)
    flat = labels.ravel()
    _, first = np.unique(flat, return_index=True)
    places = np.stack(np.unravel_index(first[flat], labels.shape)).reshape(labels.ndim, *labels.shape)
    maps[: labels.ndim] = (places - np.indices(labels.shape)) * (labels > 0)
    maps[labels.ndim : -1] = 0.4
    maps[-1] = 0.95 * (labels > 0)
    maps[-1].ravel()[first[1:]] = 1
    return maps


def affinities_of(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Whether a voxel and the one before it along each axis are of one object; a speck is joined with nothing, so it is none."""
    maps = np.zeros((labels.ndim, *labels.shape), np.float32)
    for axis, one in enumerate(maps):
        same = np.diff(labels, axis=axis) == 0
        after = (slice(None),) * axis + (slice(1, None),)
        one[after] = same & (labels[after] > 0)
    return maps


@dataclass(frozen=True)
class Known:
    """A method, the maps that it is given, and the labels that it has to make of them."""

    code: str
    kwargs: dict[str, Any]
    maps: NDArray[np.float32]
    labels: NDArray[np.int32]

    @property
    def image(self) -> xr.DataArray:
        return xr.DataArray(self.maps, dims=("channel", *("z", "y", "x")[-self.labels.ndim :]))


def known(method: str, shape: Sequence[int]) -> Known:
    """The scene of a shape for a method, by the name of its file, or `any`."""
    labels = scene(shape)
    if method == "embedseg":
        return Known(inspect.getsource(embedseg), {}, embedding_of(labels), renumber(labels))
    if method == "watershed":
        large = np.where(labels < 7, labels, 0)
        return Known(
            inspect.getsource(watershed), {"affinities": 0}, affinities_of(labels), renumber(parts(large))
        )
    code = BACKWARDS if method == "any" else inspect.getsource(components)
    inside = (labels > 0)[None].astype(np.float32)
    return Known(code, {}, inside, ndimage.label(labels > 0)[0].astype(np.int32))


def passing_package(folder: Path, scene: Known) -> Package:
    """A package whose maps are its input, grouped by the method of a scene."""
    ndim, channels = scene.labels.ndim, len(scene.maps)
    names = [f"map{n}" for n in range(channels)]
    path = build_package(
        folder,
        Passing(channels, ndim),
        axes=("batch", "channel", *("z", "y", "x")[-ndim:]),
        channels=names,
        out_channels=names,
        minimum=8,
        step=1,
        halo=1,
    )
    name = f"method_{hashlib.sha256(scene.code.encode()).hexdigest()[:8]}.py"
    return with_grouping(path, code=scene.code, name=name, kwargs=scene.kwargs)
