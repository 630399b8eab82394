"""A sample set: a pair of registered images, cut and written as train/ and val/ folders."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.atomic import atomic_output
from im2im_zoo.images import write_image
from im2im_zoo.images.colours import RGB

Array = NDArray[np.generic]
YX, CYX, ZYX = ("y", "x"), ("channel", "y", "x"), ("z", "y", "x")


@dataclass(frozen=True, slots=True)
class SampleSet:
    """A pair of registered images, cut into a training part and a held-out part.

    Attributes:
        description: a sentence for users.
        axes: of the input and the target.
        held_out: axis and index of the cut; the held-out part begins there.
        pair: function that makes the input and the target.
        unpaired: axis and index of a second cut of the training part: inputs lie before it, targets behind it, so that no
            target shows what an input shows. The held-out part stays a pair.
        images_only: whether the training part has no targets.
        has_colours: whether the channels are red, green and blue.
        cuts_left_out: whether cost maps leave out labelled objects that lie in both parts.
    """

    description: str
    axes: tuple[tuple[str, ...], tuple[str, ...]]
    held_out: tuple[str, int]
    pair: Callable[[], tuple[Array, Array]]
    unpaired: tuple[str, int] | None = None
    images_only: bool = False
    cuts_left_out: bool = False
    has_colours: bool = False


def write_set(sample: SampleSet, name: str, folder: Path) -> None:
    """Write `train/` and `val/`, each with its `images/`, `targets/` and `costs/`; `folder` appears only when it is complete.

    Args:
        sample: the set.
        name: of the files.
        folder: created here.
    """
    with atomic_output(folder) as partial:
        _write_parts(sample, name, partial)


def _write_parts(sample: SampleSet, name: str, partial: Path) -> None:
    axis, first = sample.held_out
    for number, (kind, array) in enumerate(zip(("images", "targets"), sample.pair(), strict=True)):
        image = xr.DataArray(array, dims=sample.axes[number])
        if sample.has_colours and "channel" in image.dims:
            image = image.assign_coords(channel=list(RGB))
        train, held_out = image.isel({axis: slice(None, first)}), image.isel({axis: slice(first, None)})
        train_name = name
        if sample.unpaired is not None:
            across, middle = sample.unpaired
            train = train.isel({across: slice(middle, None) if number else slice(None, middle)})
            train_name = f"{name}_{kind}"  # not a pair, so not the same name
        if kind == "images" or not sample.images_only:
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
