"""The images of a package's inputs, opened, and at the scale that it was trained at. Decides nothing of tiles."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import xarray as xr

from im2im_zoo.core.errors import AxesError, PlanError
from im2im_zoo.images import as_place, join_channels, open_image, select_channels, sources_of, stem_of
from im2im_zoo.package import Package
from im2im_zoo.runtime.layout.mapping import images_by_input, main_input
from im2im_zoo.runtime.rescale import pixel_size_warning, resampled, rescale_factors
from im2im_zoo.runtime.settings import Settings

Image = xr.DataArray | str | Path


def open_inputs(
    package: Package,
    image: Image,
    inputs: Mapping[str, Image] | None = None,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    join: Sequence[Image] = (),
) -> dict[str, xr.DataArray]:
    """The images by input: the main one, with its axes and channels, and further ones.

    Args:
        join: images of the same place, whose channels follow those of the main one, before `channels` chooses among all.

    Raises:
        PlanError, ImageError, AxesError: an input that the model does not have or lacks, or an image that cannot be opened.
    """
    main = main_input(package)
    if inputs and main in inputs:
        raise PlanError(f"the image of the input {main} is given twice")
    lazy = {main: open_joined([image, *join], axes, channels)}
    for name, other in (inputs or {}).items():
        lazy[name] = other if isinstance(other, xr.DataArray) else open_image(other)
    return images_by_input(package, lazy)


def open_joined(
    images: Sequence[Image], axes: str | None = None, channels: Sequence[int | str] | None = None
) -> xr.DataArray:
    """One image, or several of the same place as one whose channels follow each other; those without a name are called after the file.

    Args:
        images: the first, and further ones.
        axes: of the first, and of those of the others whose files do not say.
        channels: those to take of all.

    Raises:
        ImageError, AxesError: an image that cannot be opened, lacks a channel, or does not go with the others.
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


def at_model_scale(
    package: Package, images: Mapping[str, xr.DataArray], settings: Settings
) -> tuple[dict[str, xr.DataArray], list[str]]:
    """The images, resampled to the model's pixel size if that is wanted, and what to warn of if it is not."""
    main = images[main_input(package)] if main_input(package) in images else next(iter(images.values()))
    if not settings.rescale:
        warning = pixel_size_warning(package, main)
        return dict(images), [] if warning is None else [warning]
    factors = rescale_factors(package, main)
    return {
        name: resampled(i, {a: f for a, f in factors.items() if a in i.dims}) for name, i in images.items()
    }, []
