"""Mean, standard deviation and percentiles of the training images of a recipe, by channel, streamed.

Of very large data sets a sample of the images and of blocks of them is measured, the same one every time.
"""

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import DataError, ProcessingError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.data.pairing.image_pair import open_side_image
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.processing import Operation, fit
from im2im_zoo.processing.moments import mean_and_std
from im2im_zoo.processing.quantiles import quantiles
from im2im_zoo.processing.sources import Source
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.measured import (
    MeasuredSide,
    Numbers,
    find_open,
    find_stated,
    with_numbers,
    with_scale_back,
)

# Voxels (with channels) that are read; of more, a sample.
MOST_VOXELS = 2**28
FEWER_VOXELS = 2**24
PERCENTILES = (1.0, 50.0, 99.8)
_BLOCK_BYTES = 64 * 2**20
_BLOCKS_OF_IMAGE = 8
_SIDE = 256
_LEAST_OF_IMAGE = 2**18
# A stated mean or standard deviation further off than this is reported.
_MEAN_TOLERANCE, _STD_FACTOR = 0.5, 1.5


@dataclass(frozen=True, slots=True)
class SetStatistics:
    """Statistics of all training images of one side together.

    Attributes:
        channels: their names.
        mean, std: of each channel.
        percentiles: of each channel, those of `PERCENTILES`, if they were measured.
        images: number of images.
        voxels: number of voxels that were read, with channels.
        sampled: whether only a sample was read.
    """

    channels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    percentiles: tuple[tuple[float, ...], ...]
    images: int
    voxels: int
    sampled: bool

    def plain(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        named = [f"p{p:g}" for p in PERCENTILES]
        rows = [
            {"channel": name, "mean": mean, "std": std, **dict(zip(named, values, strict=False))}
            for name, mean, std, values in zip(
                self.channels,
                self.mean,
                self.std,
                self.percentiles or [()] * len(self.channels),
                strict=True,
            )
        ]
        return {
            "channels": rows,
            "images": self.images,
            "voxels": self.voxels,
            "sampled": self.sampled,
        }

    @property
    def described(self) -> str:
        """Extent of the measurement in words."""
        part = f"a sample of {self.voxels / 1e6:.0f} M voxels of " if self.sampled else ""
        return f"{part}{self.images} training image{'s' * (self.images != 1)}"


@dataclass(frozen=True, slots=True)
class FilledNumbers:
    """Numbers that were measured for the standardisation of a side, at its place among the operations."""

    side: MeasuredSide
    place: int
    mean: Numbers
    std: Numbers
    described: str

    @property
    def text(self) -> str:
        """The numbers as keys of the operation."""
        return f"{{mean: {_short(self.mean)}, std: {_short(self.std)}}}"


@dataclass(frozen=True, slots=True)
class FilledRecipe:
    """A recipe with all its numbers, and those that were measured for it."""

    recipe: Recipe
    numbers: tuple[FilledNumbers, ...] = ()


def fill_statistics(
    recipe: Recipe,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    run: Recipe | None = None,
    most_voxels: int = MOST_VOXELS,
) -> FilledRecipe:
    """Measure the mean and standard deviation that a recipe leaves open, and give them to its operations.

    Args:
        recipe: a recipe.
        allow_code: `custom` among them allows the Python of `custom` operations.
        root: folder of their sources.
        run: recipe of the run that is resumed; its numbers are used, and none are measured.
        most_voxels: of a larger data set, a sample is read.

    Raises:
        DataError: images that cannot be opened, or whose values have no statistics; constant images.
        RecipeError: an output that is scaled back by numbers that there are not.
    """
    filled = []
    sides: tuple[MeasuredSide, ...] = ("input", "target")
    for side in sides:
        place = find_open(recipe, side)
        if place is None:
            continue
        known = None if run is None else find_stated(run, side)
        if run is not None and known is not None:
            kwargs: Any = getattr(run, side).preprocessing[known].kwargs
            recipe = with_numbers(recipe, side, kwargs.mean, kwargs.std)
            continue
        found = measure_side(recipe, side, place, allow_code, root, most_voxels=most_voxels)
        mean, std = _numbers(found, f"{side}.preprocessing.{place}")
        filled.append(FilledNumbers(side, place, mean, std, found.described))
        recipe = with_numbers(recipe, side, mean, std)
    return FilledRecipe(with_scale_back(recipe), tuple(filled))


def list_far_numbers(
    recipe: Recipe,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    most_voxels: int = FEWER_VOXELS,
) -> tuple[str, ...]:
    """List the stated numbers of standardisations that are far from those of the images, as messages.

    Args:
        recipe, allow_code, root: as of `fill_statistics`.
        most_voxels: of a larger data set, a sample is read.

    Raises:
        DataError: images that cannot be opened, or whose values have no statistics.
    """
    found = []
    sides: tuple[MeasuredSide, ...] = ("input", "target")
    for side in sides:
        place = find_stated(recipe, side)
        if place is None:
            continue
        kwargs: Any = getattr(recipe, side).preprocessing[place].kwargs
        measured = measure_side(recipe, side, place, allow_code, root, most_voxels=most_voxels)
        means, stds = (np.atleast_1d(np.asarray(n, np.float64)) for n in (kwargs.mean, kwargs.std))
        own = np.asarray(measured.mean), np.asarray(measured.std)
        if getattr(kwargs, "axis", None) is None and len(own[0]) > 1:  # one number for all channels
            mean = own[0].mean()
            own = np.array([mean]), np.array([math.sqrt((own[1] ** 2 + (own[0] - mean) ** 2).mean())])
        if means.shape != own[0].shape:
            continue
        far = (np.abs(means - own[0]) > _MEAN_TOLERANCE * own[1]) | (
            np.abs(np.log(stds / np.maximum(own[1], 1e-12))) > math.log(_STD_FACTOR)
        )
        if far.any():
            found.append(
                f"{side}.preprocessing.{place}: it states mean {_short(kwargs.mean)} and standard deviation "
                f"{_short(kwargs.std)}, but the images have {_short(measured.mean)} and {_short(measured.std)}; remove its kwargs, "
                "and training measures them"
            )
    return tuple(found)


def measure_side(
    recipe: Recipe,
    side: MeasuredSide,
    place: int = 0,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    *,
    percentiles: bool = False,
    most_voxels: int = MOST_VOXELS,
) -> SetStatistics:
    """Measure the training images of one side, after the first operations of its preprocessing.

    Args:
        recipe: its `data` and `input.axes` are used.
        side: input or target.
        place: number of operations before the measurement.
        allow_code, root: as of `fill_statistics`.
        percentiles: whether to measure them, which takes a second pass.
        most_voxels: of a larger data set, a sample is read.

    Raises:
        DataError: images that cannot be opened, or whose values have no statistics.
    """
    images = _open_training(recipe, side)
    operations = getattr(recipe, side).preprocessing[:place]
    return measure_images(
        images,
        operations,
        allow_code="custom" in allow_code,
        root=root,
        percentiles=percentiles,
        most_voxels=most_voxels,
        key=f"{side}.preprocessing",
        seed=recipe.seed,
    )


def measure_images(
    images: Sequence[xr.DataArray],
    operations: Sequence[Operation] = (),
    *,
    allow_code: bool = False,
    root: Path | None = None,
    percentiles: bool = False,
    most_voxels: int = MOST_VOXELS,
    key: str = "images",
    seed: int = 0,
) -> SetStatistics:
    """Measure images together, each channel for itself.

    Args:
        images: at least one, lazy, with the axes channel, (z,) y, x and the same channels.
        operations: applied to each image before it is measured.
        allow_code, root: as of `processing.fit`.
        percentiles: whether to measure them, which takes a second pass.
        most_voxels: of more, a seeded sample is read.
        key: name in messages.
        seed: of the sample.

    Raises:
        DataError: an operation that fails, or values that have no statistics (NaN).
    """
    try:
        sources = []
        sampled = sum(image.size for image in images) > most_voxels
        parts = _sample(images, most_voxels, seed) if sampled else [(image, [image]) for image in images]
        for image, blocks in parts:
            pipeline = fit(operations, image, allow_code=allow_code, root=root)
            sources += [Source(block, pipeline, pipeline.whole_axes) for block in blocks]
        space = [str(axis) for axis in images[0].dims if axis != "channel"]
        mean, std = mean_and_std(sources, space, block_bytes=_BLOCK_BYTES)
        fractions = [p / 100 for p in PERCENTILES]
        cuts = (
            quantiles(sources, space, fractions, method="linear", block_bytes=_BLOCK_BYTES)
            if percentiles
            else ()
        )
    except ProcessingError as error:
        raise DataError(f"{key}: {error}") from error
    names = (
        [str(name) for name in images[0].coords["channel"].values] if "channel" in images[0].coords else []
    )
    count = mean.size
    return SetStatistics(
        tuple(names) if len(names) == count else tuple(map(str, range(count))),
        tuple(map(float, mean.values.reshape(-1))),
        tuple(map(float, std.values.reshape(-1))),
        tuple(zip(*(map(float, cut.values.reshape(-1)) for cut in cuts), strict=True)),
        len(images),
        sum(source.image.size for source in sources),
        sampled,
    )


def _open_training(recipe: Recipe, side: MeasuredSide) -> list[xr.DataArray]:
    pairs = find_pairs(recipe.data, recipe.seed)
    lone = pairs.inputs if side == "input" else pairs.targets
    opened = [open_side_image(path, recipe, side) for path in lone]
    for pair in pairs.train:
        path, more = (pair.input, pair.more) if side == "input" else (pair.target, ())
        opened.append(open_side_image(path, recipe, side, pair.time, more))
    return opened


def _numbers(found: SetStatistics, key: str) -> tuple[Numbers, Numbers]:
    """Return mean and standard deviation with six digits, one number for one channel.

    Raises:
        DataError: a channel is constant.
    """
    flat = [name for name, std in zip(found.channels, found.std, strict=True) if std < 1e-6]
    if flat:
        raise DataError(
            f"{key}: the training images have one value everywhere (channel {', '.join(flat)}), so they have no standard deviation; "
            "check the files, or choose other channels"
        )
    mean, std = ([float(f"{value:.6g}") for value in values] for values in (found.mean, found.std))
    return (mean[0], std[0]) if len(mean) == 1 else (mean, std)


def _sample(
    images: Sequence[xr.DataArray], most_voxels: int, seed: int
) -> Iterator[tuple[xr.DataArray, list[xr.DataArray]]]:
    """Yield images, and blocks of them at places that depend on the seed only."""
    count = max(1, min(len(images), most_voxels // _LEAST_OF_IMAGE))
    ranked = sorted(range(len(images)), key=lambda i: sha256_of(f"{seed}/{i}"))[:count]
    for number in sorted(ranked):
        image, budget = images[number], most_voxels // count
        if image.size <= budget:
            yield image, [image]
            continue
        choose = random.Random(f"{seed}/{number}")  # noqa: S311 a sample, no secret
        yield image, [_draw_block(image, budget // _BLOCKS_OF_IMAGE, choose) for _ in range(_BLOCKS_OF_IMAGE)]


def _draw_block(image: xr.DataArray, voxels: int, choose: random.Random) -> xr.DataArray:
    """Draw a block of about a number of voxels, with all channels, as wide as possible in the plane."""
    sizes = {str(a): n for a, n in image.sizes.items() if a != "channel"}
    left = max(1, voxels // image.sizes["channel"])
    lengths: dict[str, int] = {}
    for axis in reversed(sizes):  # x, y, z
        wanted = min(sizes[axis], _SIDE) if axis in ("y", "x") else sizes[axis]
        lengths[axis] = max(1, min(wanted, left))
        left = max(1, left // lengths[axis])
    starts = {axis: choose.randrange(sizes[axis] - length + 1) for axis, length in lengths.items()}
    region: Mapping[str, slice] = {a: slice(starts[a], starts[a] + n) for a, n in lengths.items()}
    return image.isel(region)


def _short(numbers: Any) -> str:
    values = numbers if isinstance(numbers, list | tuple) else [numbers]
    text = ", ".join(f"{value:.6g}" for value in values)
    return f"[{text}]" if len(values) > 1 else text
