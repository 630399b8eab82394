"""Raw images of a pair, opened lazily, with the axes of the recipe's input tensor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xarray as xr

from im2im_zoo.core.axes import AxisName, axes_letters
from im2im_zoo.core.errors import AxesError, DataError, ImageError
from im2im_zoo.data.pairing.files import format_file_list
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.data.pairing.pairing import find_pairs
from im2im_zoo.data.pairing.pairs import Pair
from im2im_zoo.images import Place, join_channels, open_image, pixel_size_um, select_channels
from im2im_zoo.images.joined import PIXEL_TOLERANCE
from im2im_zoo.images.lazy import arranged_image
from im2im_zoo.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class ImagePair:
    """A pair of raw images.

    Attributes:
        name: the pair's.
        input, target: lazy; their dims are the recipe's `input.axes` without batch, and their space axes have the
            same sizes; `attrs` and channel names as from `open_image`.
        cost: weight of each voxel of the target, one channel, if there are cost maps.
        measurable: whether results can be evaluated against the target. False with `data.pairing: self` where the target is
            the input.
    """

    name: str
    input: xr.DataArray
    target: xr.DataArray
    cost: xr.DataArray | None = None
    measurable: bool = True

    @property
    def images(self) -> dict[Side, xr.DataArray]:
        """The images of the pair, with the cost map if there is one."""
        pair: dict[Side, xr.DataArray] = {"input": self.input, "target": self.target}
        return pair if self.cost is None else pair | {"cost": self.cost}


def open_image_pair(pair: Pair, recipe: Recipe) -> ImagePair:
    """Open the images of a pair without reading their voxels.

    Raises:
        ImageError: a file that cannot be read, or lacks a channel.
        DataError: axes other than the recipe's; images whose sizes or pixel sizes differ; a cost map with several
            channels.
    """
    cost = None if pair.cost is None else open_side_image(pair.cost, recipe, "cost", pair.time)
    image = open_side_image(pair.input, recipe, "input", pair.time, pair.more)
    own = recipe.data.pairing == "self" and pair.target == pair.input
    target = image if own else open_side_image(pair.target, recipe, "target", pair.time)
    sample = ImagePair(pair.name, image, target, cost, measurable=not own)
    check_image_pair(pair.name, sample.images, recipe)
    return sample


def check_image_pair(name: str, images: Mapping[Side, xr.DataArray], recipe: Recipe) -> None:
    """Check that the images of a pair match voxel by voxel; input or target may be missing.

    Raises:
        DataError: sizes or pixel sizes that differ; a cost map with several channels.
    """
    _check_geometry(name, images, recipe)
    cost = images.get("cost")
    if cost is not None and cost.sizes["channel"] != 1:
        raise DataError(
            f"{cost.attrs.get('source')}: a cost map needs one channel, but this file has {cost.sizes['channel']}; choose one "
            "in data.cost_channels"
        )


def open_validation_pairs(recipe: Recipe) -> list[ImagePair]:
    """Open the raw validation pairs; with `data.pairing: self` the targets are the images that results are evaluated against."""
    pairs = find_pairs(recipe.data, recipe.seed).validation
    return [open_image_pair(replace(pair, target=pair.truth or pair.target), recipe) for pair in pairs]


def check_image_pairs(
    samples: Sequence[ImagePair],
    recipe: Recipe,
    inputs: Sequence[xr.DataArray] = (),
    targets: Sequence[xr.DataArray] = (),
) -> None:
    """Check all pairs, and images without partners, together: equal channels, and room for a patch.

    Raises:
        DataError: the message lists the files.
    """
    images = [*inputs, *(sample.input for sample in samples)]
    check_channels(images, "input", recipe)
    check_channels([*targets, *(sample.target for sample in samples)], "target", recipe)
    check_room([*images, *targets], recipe)


def check_channels(images: Sequence[xr.DataArray], side: Side, recipe: Recipe) -> None:
    """Check that all inputs, or all targets, have the same number of channels; inputs as many as the recipe names.

    Raises:
        DataError: the message lists the files.
    """
    _check_channel_counts(images, side)
    named, count = recipe.input.channels, images[0].sizes["channel"]
    if side == "input" and named is not None and len(named) != count:
        raise DataError(
            f"input.channels has {len(named)} names ({', '.join(named)}), but the input images have {count} channels; "
            "name each one, or choose some with data.input_channels"
        )


def check_room(images: Sequence[xr.DataArray], recipe: Recipe) -> None:
    """Check that a patch, if its size is known, fits into each image.

    Raises:
        DataError: the message lists the files.
    """
    if recipe.data.patch_size is None:
        return
    patch = dict(zip(recipe.space, recipe.data.patch_size, strict=True))
    small = [i for i in images if any(i.sizes[axis] < size for axis, size in patch.items())]
    if small:
        raise DataError(
            f"images are smaller than data.patch_size, {_sizes_text(patch)}; make it at most as large as the smallest "
            f"image, or remove these images:\n{format_file_list(map(_describe_space, small))}"
        )


def open_side_image(
    path: Place, recipe: Recipe, side: Side, time: int | None = None, more: Sequence[Place] = ()
) -> xr.DataArray:
    """Open one image of a pair, lazily, with the recipe's axes and channels.

    Args:
        path: its file or address.
        recipe: declares axes and channels of files.
        side: the kind of image.
        time: the time point of a movie.
        more: further files, whose channels are joined to its own.

    Raises:
        ImageError: a file that cannot be read, or lacks a channel.
        DataError: axes other than the recipe's, or files that cannot be joined.
    """
    if more:
        whole = recipe.model_copy(update={"data": recipe.data.model_copy(update={"input_channels": None})})
        parts = [open_side_image(one, whole, side, time) for one in (path, *more)]
        try:
            joined = join_channels(parts, recipe.data.inputs)
        except ImageError as error:
            raise DataError(f"data.input: {error}") from error
        chosen = recipe.data.input_channels
        return joined if chosen is None else select_channels(path, joined, chosen)
    data = recipe.data
    axes, channels = {
        "input": (data.input_axes, data.input_channels),
        "target": (data.target_axes, data.target_channels),
        "cost": (data.cost_axes, data.cost_channels),
    }[side]
    try:
        image = open_image(path, axes=axes)
        # An image without a channel axis is its own first channel.
        if channels is not None and ("channel" in image.dims or tuple(channels) != (0,)):
            image = select_channels(path, image, channels)
    except AxesError as error:
        raise DataError(
            f"{error} (data.{side}_axes declares the axes, data.{side}_channels the channels)"
        ) from error
    if time is not None and "time" in image.dims:
        image = image.isel(time=time)
    return arrange_axes(image, recipe.input.axes[1:], f"data.{side}_axes")


def arrange_axes(image: xr.DataArray, axes: Sequence[AxisName], key: str) -> xr.DataArray:
    """Return a lazy view of an image with exactly the given axes.

    Args:
        image: as from `open_image`.
        axes: of the view, in order. `channel` is added if the image has none; other axes of size one are dropped.
        key: the recipe's key that declares the axes of the file, for messages.

    Raises:
        DataError: an axis is missing, or another one is longer than one.
    """
    wanted = axes_letters(axes)
    described = (
        f"{image.attrs.get('source')} has the axes {axes_letters(map(str, image.dims))!r} {image.shape}"
    )
    extra = [str(axis) for axis in image.dims if axis not in axes and image.sizes[axis] != 1]
    if "time" in extra:
        raise DataError(
            f"{described}: training needs single time points, but the time axis has {image.sizes['time']}: "
            f"set data.time_points to use each as an image, or declare the axes in {key} if this is another axis"
        )
    missing = [axis for axis in axes if axis not in image.dims and axis != "channel"]
    if missing or extra:
        wrong = [f"{', '.join(missing)} is missing"] * bool(missing) + [
            f"{', '.join(extra)} is too much"
        ] * bool(extra)
        raise DataError(
            f"{described}, but input.axes needs {wanted!r} (besides batch): {' and '.join(wrong)}; declare the axes "
            f"of the files in {key} if these are wrong, or change input.axes"
        )
    arranged = arranged_image(image, tuple(axes), {str(a): 0 for a in image.dims if a not in axes})
    arranged.attrs = dict(image.attrs)
    arranged.name = image.name
    return arranged.assign_coords(channel=image["channel"].values) if "channel" in image.coords else arranged


def _check_geometry(name: str, images: Mapping[Side, xr.DataArray], recipe: Recipe) -> None:
    target = images["target"] if "target" in images else images["input"]
    for side, image in images.items():
        if any(image.sizes[axis] != target.sizes[axis] for axis in recipe.space):
            raise DataError(
                f"{name}: {side} and target differ in size, but have to match voxel by voxel; crop or resample one:\n"
                f"{format_file_list(map(_describe_space, (image, target)))}"
            )
        sizes = pixel_size_um(image), pixel_size_um(target)
        for axis in recipe.space:
            ours, theirs = (known.get(axis) for known in sizes)
            if ours and theirs and abs(ours - theirs) > PIXEL_TOLERANCE * max(ours, theirs):
                raise DataError(
                    f"{name}: the pixel size along {axis} is {ours:g} µm in {image.attrs.get('source')} but "
                    f"{theirs:g} µm in {target.attrs.get('source')}; register the two, or correct the wrong one"
                )


def _check_channel_counts(images: Sequence[xr.DataArray], side: Side) -> None:
    counts = [image.sizes["channel"] for image in images]
    usual = max(sorted(set(counts)), key=counts.count)
    others = [image for image, count in zip(images, counts, strict=True) if count != usual]
    if others:
        lines = [f"{image.attrs.get('source')}: {image.sizes['channel']}" for image in others]
        raise DataError(
            f"most {side} images have {usual} channel{'s' * (usual != 1)}, but some have another number; choose the channels "
            f"in data.{side}_channels, or remove these:\n{format_file_list(lines)}"
        )


def _describe_space(image: xr.DataArray) -> str:
    space = {str(a): n for a, n in image.sizes.items() if a != "channel"}
    return f"{image.attrs.get('source')}: {_sizes_text(space)}"


def _sizes_text(sizes: Mapping[Any, int]) -> str:
    return " × ".join(f"{axis} {size}" for axis, size in sizes.items())
