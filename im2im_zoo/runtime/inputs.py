"""Input images: opened by input tensor, and resampled to the pixel size that the model was trained at."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xarray as xr

from im2im_zoo.core.errors import AxesError, ImageError, PlanError
from im2im_zoo.images import (
    as_place,
    describe_missing_chunks,
    join_channels,
    open_image,
    select_channels,
    sources_of,
    stem_of,
)
from im2im_zoo.package import Package
from im2im_zoo.runtime.layout.mapping import images_by_input, main_input
from im2im_zoo.runtime.rescale import pixel_size_warning, resample_by, rescale_factors
from im2im_zoo.runtime.settings import Settings

Image = xr.DataArray | str | Path


@dataclass(frozen=True, slots=True)
class Request:
    """The opened images of one prediction.

    Attributes:
        originals: by input, at the pixel size of their files.
        images: by input, at the pixel size of the model.
        warnings: about the images.
    """

    originals: Mapping[str, xr.DataArray]
    images: Mapping[str, xr.DataArray]
    warnings: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        package: Package,
        image: Image,
        inputs: Mapping[str, Image] | None,
        axes: str | None,
        channels: Sequence[int | str] | None,
        join: Sequence[Image],
        settings: Settings,
        *,
        strict: bool,
    ) -> Self:
        """Open the images and, if the settings ask for it, resample them; see `open_inputs`, `rescale_to_model`.

        Args:
            package, image, inputs, axes, channels, join, settings: see `Model.predict`.
            strict: refuse a zarr of which chunks are missing, see `check_chunks`.
        """
        originals = open_inputs(package, image, inputs, axes=axes, channels=channels, join=join)
        images, warnings = rescale_to_model(package, originals, settings)
        return cls(originals, images, (*warnings, *check_chunks(originals.values(), strict=strict)))


def open_inputs(
    package: Package,
    image: Image,
    inputs: Mapping[str, Image] | None = None,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    join: Sequence[Image] = (),
) -> dict[str, xr.DataArray]:
    """Open the images of all inputs.

    Args:
        package: the model.
        image: of the main input.
        inputs: further images, by input id.
        axes: letters of the main image's axes, if its file does not state them.
        channels: indices or names of the channels to keep, in the model's order.
        join: images of the same field of view, whose channels are appended before `channels` selects among all.

    Returns:
        The lazy images by input id.

    Raises:
        PlanError, ImageError, AxesError: an unknown or missing input, or an image that cannot be opened.
    """
    main = main_input(package)
    if inputs and main in inputs:
        raise PlanError(f"the image of the input {main} is given twice; leave out --input {main}=PATH")
    lazy = {main: open_joined([image, *join], axes, channels)}
    for name, other in (inputs or {}).items():
        lazy[name] = other if isinstance(other, xr.DataArray) else open_image(other)
    return images_by_input(package, lazy)


def open_joined(
    images: Sequence[Image], axes: str | None = None, channels: Sequence[int | str] | None = None
) -> xr.DataArray:
    """Open one image, or join the channels of several; a channel without a name is named after its file.

    Args:
        images: the first image, and further ones of the same field of view.
        axes: letters of the first image's axes, and of the others whose files do not state them.
        channels: indices or names of the channels to keep, counted over all images.

    Raises:
        ImageError, AxesError: an image that cannot be opened, lacks a channel, or does not match the others.
    """
    first, *more = images
    if not more:
        return first if isinstance(first, xr.DataArray) else open_image(first, axes=axes, channels=channels)
    opened = [open_joined([first], axes), *(_open_further(image, axes) for image in more)]
    places = [as_place(next(iter(sources_of(i)), f"image {n}")) for n, i in enumerate(opened)]
    joined = join_channels(opened, [stem_of(place) for place in places])
    return joined if channels is None else select_channels(places[0], joined, channels)


def _open_further(image: Image, axes: str | None) -> xr.DataArray:
    if isinstance(image, xr.DataArray):
        return image
    try:
        return open_image(image)
    except AxesError:
        if axes is None:
            raise
        return open_image(image, axes=axes)


def check_chunks(images: Iterable[xr.DataArray], *, strict: bool) -> list[str]:
    """Return a warning for each zarr that lacks chunks which are read: a reader gets a fill value in their place.

    Args:
        images: as opened.
        strict: refuse such a zarr instead.

    Raises:
        ImageError: chunks are missing, and `strict` is set.
    """
    warnings = []
    for text in (text for image in images for text in describe_missing_chunks(image)):
        if strict:
            raise ImageError(
                f"{text}; copy the image again, or leave out --strict if the program that wrote it leaves out empty chunks"
            )
        warnings.append(
            f"{text}; programs leave out empty chunks, but if parts of the image were lost, copy it again (--strict refuses)"
        )
    return warnings


def rescale_to_model(
    package: Package, images: Mapping[str, xr.DataArray], settings: Settings
) -> tuple[dict[str, xr.DataArray], list[str]]:
    """Resample the images to the model's pixel size if `settings.rescale` is set.

    Returns:
        The images by input, and a warning if they are not rescaled although their pixel size differs from the model's.
    """
    main = images[main_input(package)] if main_input(package) in images else next(iter(images.values()))
    if not settings.rescale:
        warning = pixel_size_warning(package, main)
        return dict(images), [] if warning is None else [warning]
    factors = rescale_factors(package, main)
    return {
        name: resample_by(i, {a: f for a, f in factors.items() if a in i.dims}) for name, i in images.items()
    }, []
