"""Opening an image: its format, axes and channels. Reads no voxel."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from im2im_zoo.core.axes import AxisName, axes_letters, parse_axes
from im2im_zoo.core.errors import AxesError, Im2ImError, ImageError
from im2im_zoo.core.inner_path import leads_out
from im2im_zoo.images.address import Address, Place, as_place
from im2im_zoo.images.axes_message import describe_unknown_axes
from im2im_zoo.images.colours import GREY, as_grey, is_colour, names_of, without_alpha
from im2im_zoo.images.lazy import Source, arranged_image, lazy_image
from im2im_zoo.images.metadata import ATTRIBUTES_KEY, ImageMetadata
from im2im_zoo.images.registry import format_of, format_to_open

_GREY_WORDS = ("grey", "gray")


def open_image(
    source: str | Place,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    labels: bool = False,
) -> xr.DataArray:
    """Open an image without reading its voxels.

    Args:
        source: a file or a zarr folder, also a level or a label image within one. In a file of several images,
            `#n` after the name chooses one, counted from 0: "cells.lif#2"; in HDF5 and zipped zarrs, a path does: "cells.h5:/raw". Or the https address of a zarr folder, of which
            only the chunks that are needed are fetched, whenever they are.
        axes: letters of `im2im_zoo.core.axes`, one a dimension ("zyx"); needed where the file does not state them, and
            put in place of what it states where it does ("cyx" for a stack whose planes are to be channels).
        channels: which channels to keep, in this order, by name or by index from 0. `["grey"]` is the luminance of a colour image and a
            greyscale image as it is, both without an axis of channels. By default all but the transparency (alpha) of pictures.
        labels: whether the image is a mask or a label image, so that a picture with a palette has its numbers, not its colours.

    Returns:
        Lazy array in the file's order of axes. (OME-TIFF and ImageJ state every axis: those of length 1 are left out
        unless `axes` asks for them, or the one channel has a name.) attrs: `source`, `part` (of it, if one was named), `pixel_size_um` (axis -> micrometres, those known),
        `time_step_s`, `translation_um`, `im2im_zoo` (provenance), each if known; coords: `channel` if names are.

    Raises:
        ImageError: a file that is missing, damaged, not an image, or of an unknown format; a server that cannot be reached.
        AxesError: axes that the file does not state and nobody declared, or that do not fit.
    """
    path, part = _split(source)
    voxels, metadata = _read(path, part, labels=labels)
    dims = _axes(path, voxels.shape, metadata, axes, chosen=channels is not None)
    image, metadata = _with_singletons(voxels, metadata, dims)
    image.attrs = _attributes(path, dims, metadata)
    if part not in (None, ""):
        image.attrs["part"] = part
    names = _names(dims, metadata)
    if names is not None:
        image = image.assign_coords(channel=np.array(names, dtype=np.str_))
    if channels is None:
        return without_alpha(image, keep_axis=axes is not None)
    return select_channels(path, image, channels)


def is_zarr_path(path: Path) -> bool:
    """Return whether a path is, or becomes, an image that label images can be put into, by its name."""
    found = format_of(path, "write")
    return found is not None and found.holds_labels


def _split(source: str | Place) -> tuple[Place, int | str | None]:
    """Return the place, and the number of the image within it, or its path there."""
    path = as_place(source)
    if isinstance(path, Address):
        return path, None
    path = path.expanduser()
    if path.exists():
        return path, None
    if chosen := re.fullmatch(r"(.+)#(\d+)", str(source)):
        return Path(chosen[1]).expanduser(), int(chosen[2])
    # Also a drive of Windows has a colon and a slash behind its letter.
    for mark in re.finditer(r":(?=/)", str(source)):
        file = Path(str(source)[: mark.start()]).expanduser()
        found = format_of(file)
        if found is not None and found.by_path and file.is_file():
            return file, str(source)[mark.end() :].strip("/")
    return path, None


def _read(path: Place, part: int | str | None, *, labels: bool) -> tuple[Source, ImageMetadata]:
    """Return what the format's `open` does, every failure as an ImageError that names the file."""
    try:
        if not isinstance(path, Address):
            _check_file(path)
        return _open(path, part, labels=labels)
    except Im2ImError:
        raise
    except PermissionError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror}): ask for the permission to read it"
        ) from error
    except Exception as error:
        raise ImageError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); it may be damaged, cut short, or of another "
            "format than its name says: copy or export it again"
        ) from error


def _check_file(path: Path) -> None:
    if not path.exists():
        near = "" if path.parent.exists() else f" (nor is its folder {path.parent})"
        raise ImageError(f"{path}: there is no such file{near}; check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError(f"{path}: is empty (0 bytes): copy or export it again")


def _open(path: Place, part: int | str | None, *, labels: bool) -> tuple[Source, ImageMetadata]:
    image_format = format_to_open(path)
    if isinstance(path, Address):
        return image_format.open_address(path)
    if isinstance(part, str) and part:
        if leads_out(part):
            raise ImageError(f"{path}: {part!r} leads out of the file; name an image within it")
        return image_format.open_within(path, part)
    if isinstance(part, int) and not image_format.several:
        if image_format.by_path:
            raise ImageError(
                f"{path}: choose the image by its path within, as in '{path.name}:/name', not by '#{part}'"
            )
        raise ImageError(f"{path}: holds one image; leave out '#{part}'")
    number = part if isinstance(part, int) else None
    return image_format.open_labels(path, number) if labels else image_format.open(path, number)


def _axes(
    path: Place, shape: tuple[int, ...], metadata: ImageMetadata, declared: str | None, *, chosen: bool
) -> tuple[AxisName, ...]:
    stated = metadata.axes
    if not shape:
        raise ImageError(f"{path}: holds a single number, no image")
    if declared is None:
        if stated is None:
            told = describe_unknown_axes(
                shape, metadata.partial_axes, metadata.axes_note, metadata.axes_alternative
            )
            raise AxesError(f"{path}: {told}")
        if metadata.must_choose and not chosen:
            raise AxesError(f"{path}: {metadata.must_choose}")
        return _with_named_channel(stated, metadata)
    given = parse_axes(declared)
    if "batch" in given:
        raise AxesError(
            f"{path}: axes {declared!r}: an image file has no batch axis; use another, or 'i' (index)"
        )
    kept = [axis for axis in given if axis not in metadata.singletons]
    if len(given) != len(shape) and (stated is None or len(kept) != len(shape)):
        said = f"; {metadata.axes_stated_by} says {axes_letters(stated)!r}" if stated else ""
        said = f"; it {metadata.axes_note}" if metadata.axes_note else said
        raise AxesError(
            f"{path}: axes {declared!r} are {len(given)}, but its shape {shape} has {len(shape)} dimensions{said}"
        )
    return given


def _with_named_channel(stated: tuple[AxisName, ...], metadata: ImageMetadata) -> tuple[AxisName, ...]:
    """Return the axes, with that of a single channel that the shape leaves out but the file names, so that its name is kept."""
    if "channel" not in metadata.singletons or metadata.channel_names is None:
        return stated
    at = 1 if stated[:1] == ("time",) else 0
    return (*stated[:at], "channel", *stated[at:])


def _with_singletons(
    voxels: Source, metadata: ImageMetadata, dims: tuple[AxisName, ...]
) -> tuple[xr.DataArray, ImageMetadata]:
    """Insert those axes of length 1 that the file states, its shape leaves out and `dims` has."""
    if metadata.axes is None or len(dims) == len(voxels.shape):
        return lazy_image(voxels, dims), metadata
    stored = tuple(axis for axis in dims if axis not in metadata.singletons)
    others = iter(metadata.axes)
    full = tuple(axis if axis in metadata.singletons else next(others) for axis in dims)
    return arranged_image(lazy_image(voxels, stored), dims), replace(metadata, axes=full)


def _unchanged(dims: Sequence[AxisName], metadata: ImageMetadata, axis: str) -> bool:
    """Return whether an axis is the one that the file means by this name, or the file does not say."""
    if axis not in dims:
        return False
    return metadata.axes is None or metadata.axes[list(dims).index(axis)] == axis  # type: ignore[arg-type]


def _attributes(path: Place, dims: Sequence[AxisName], metadata: ImageMetadata) -> dict[str, Any]:
    kept = [str(axis) for axis in dims if _unchanged(dims, metadata, axis)]
    attributes: dict[str, Any] = {
        "source": str(path),
        "pixel_size_um": {a: metadata.pixel_size_um[a] for a in kept if a in metadata.pixel_size_um},
    }
    if metadata.time_step_s is not None and "time" in kept:
        attributes["time_step_s"] = metadata.time_step_s
    if translation := {a: metadata.translation_um[a] for a in kept if a in metadata.translation_um}:
        attributes["translation_um"] = translation
    if metadata.attributes:
        attributes[ATTRIBUTES_KEY] = dict(metadata.attributes)
    return attributes


def _names(dims: Sequence[AxisName], metadata: ImageMetadata) -> tuple[str, ...] | None:
    return metadata.channel_names if _unchanged(dims, metadata, "channel") else None


def select_channels(path: Place, image: xr.DataArray, channels: Sequence[int | str]) -> xr.DataArray:
    """Return some channels of an image, in the given order, by name or by index from 0; of `["grey"]` see `open_image`.

    Raises:
        AxesError: it has no channels.
        ImageError: it lacks one; `path` is where the message says it is.
    """
    if isinstance(channels, str):
        channels = [channels]
    is_grey = [str(channel).lower() in _GREY_WORDS for channel in channels]
    if is_grey == [True]:
        return as_grey(path, image)
    if any(is_grey) and GREY not in names_of(image):
        raise ImageError(f"{path}: 'grey' is computed from all colours; choose it alone")
    if "channel" not in image.dims:
        raise AxesError(
            f"{path}: has no channel axis to choose {list(channels)} from: it is greyscale, and its axes are "
            f"{axes_letters(map(str, image.dims))!r}; leave out the channels, or choose 'grey', which also converts colour images"
        )
    if not channels:
        raise ImageError(f"{path}: no channel is chosen; name at least one, or leave out `channels`")
    return image.isel(channel=[_channel_index(path, image, c) for c in channels])


def _channel_index(path: Place, image: xr.DataArray, channel: int | str) -> int:
    count = image.sizes["channel"]
    names = [str(n) for n in image["channel"].values] if "channel" in image.coords else []
    if isinstance(channel, str) and names.count(channel) == 1:
        return names.index(channel)
    is_index = isinstance(channel, int | np.integer) or channel.isdecimal()
    if is_index and 0 <= int(channel) < count:
        return int(channel)
    listed = f"its channels are {', '.join(map(repr, names))}" if names else "its channels have no names"
    grey = ", or choose 'grey'" if is_colour(image) else ""
    raise ImageError(
        f"{path}: has no single channel {channel!r}; {listed}; or choose by number, counted from 0 to {count - 1}{grey}"
    )
