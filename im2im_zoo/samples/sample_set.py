"""A pair of registered images as train/ and val/ folders: where it is cut, and how it is written. No image of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.atomic import atomic_output
from im2im_zoo.images import write_image

Array = NDArray[np.generic]
YX, CYX, ZYX = ("y", "x"), ("channel", "y", "x"), ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class SampleSet:
    """A pair of registered images, and where it is cut into a part for training and a held-out one.

    With `unpaired`, an axis and an index, the part for training is cut once more: images are what lies before it,
    targets what lies behind, so that no target shows what an image shows. The held-out part stays a pair. With `alone`,
    the part for training has no targets. With `cuts_left_out` there are cost maps that leave out the labelled objects which the cut
    between the two parts goes through.
    """

    description: str
    axes: tuple[tuple[str, ...], tuple[str, ...]]
    held_out: tuple[str, int]
    pair: Callable[[], tuple[Array, Array]]
    unpaired: tuple[str, int] | None = None
    alone: bool = False
    cuts_left_out: bool = False


def write_set(sample: SampleSet, name: str, folder: Path) -> None:
    """Write `train/` and `val/`, each with the `images/`, `targets/` and `costs/` that it has, in one step."""
    with atomic_output(folder) as partial:
        _write_parts(sample, name, partial)


def _write_parts(sample: SampleSet, name: str, partial: Path) -> None:
    axis, first = sample.held_out
    for number, (kind, array) in enumerate(zip(("images", "targets"), sample.pair(), strict=True)):
        image = xr.DataArray(array, dims=sample.axes[number])
        train, held_out = image.isel({axis: slice(None, first)}), image.isel({axis: slice(first, None)})
        train_name = name
        if sample.unpaired is not None:
            across, middle = sample.unpaired
            train = train.isel({across: slice(middle, None) if number else slice(None, middle)})
            train_name = f"{name}_{kind}"  # not a pair: not of one name
        if kind == "images" or not sample.alone:
            _write(train, partial / "train" / kind / f"{train_name}.ome.tif")
        _write(held_out, partial / "val" / kind / f"{name}.ome.tif")
        if sample.cuts_left_out and kind == "targets":
            cut = np.intersect1d(train.isel({axis: -1}), held_out.isel({axis: 0}))
            for part, labels in (("train", train), ("val", held_out)):
                counted = ~labels.isin(cut[cut > 0])
                _write(counted.astype(np.uint8), partial / part / "costs" / f"{name}.ome.tif")


def _write(image: xr.DataArray, path: Path) -> None:
    path.parent.mkdir(parents=True)
    write_image(image, path)
