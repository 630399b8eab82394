"""Colours of pictures: red, green and blue as channels, transparency, and greyscale. One rule for all formats."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.lazy import DECODING_KEY, Key, lazy_image

RGB = ("red", "green", "blue")
GREY, ALPHA = "grey", "alpha"
# ITU-R BT.601, as Pillow and OpenCV weigh them; the sum is 1, so that grey stays as it is.
_WEIGHTS = (0.299, 0.587, 0.114)


def names_of(image: xr.DataArray) -> tuple[str, ...]:
    """Return the names of an image's channels; () if it has none."""
    if "channel" not in image.coords or "channel" not in image.dims:
        return ()
    return tuple(str(name) for name in image["channel"].values)


def is_colour(image: xr.DataArray) -> bool:
    """Return whether the channels of an image are red, green and blue, whatever else it has."""
    return tuple(name.lower() for name in names_of(image)[:3]) == RGB


def without_alpha(image: xr.DataArray, *, keep_axis: bool) -> xr.DataArray:
    """Return an image of colours or of grey without its transparency, which is no intensity; others as they are.

    Args:
        image: lazy.
        keep_axis: whether a grey image keeps an axis of its one channel.
    """
    names = names_of(image)
    if names[-1:] != (ALPHA,) or names[:-1] not in (RGB, (GREY,)):
        return image
    if names[:-1] == (GREY,) and not keep_axis:
        return image.isel(channel=0, drop=True)
    return image.isel(channel=list(range(len(names) - 1)))


def as_grey(path: object, image: xr.DataArray) -> xr.DataArray:
    """Return an image as one greyscale channel without an axis, lazily; of colours the luminance, in the same data type.

    Args:
        path: for the message.
        image: without channels, of one channel, or of red, green and blue.

    Raises:
        ImageError: its channels are others.
    """
    if "channel" not in image.dims:
        return image
    if image.sizes["channel"] == 1:
        return image.isel(channel=0, drop=True)
    if GREY in names_of(image):
        return image.isel(channel=names_of(image).index(GREY), drop=True)
    if not is_colour(image):
        listed = f"({', '.join(names_of(image))})" if names_of(image) else "without names"
        raise ImageError(
            f"{path}: only the colours red, green and blue can be converted to grey, but the image has {image.sizes['channel']} channels "
            f"{listed}; choose one by its name or by its number, counted from 0"
        )
    dims = tuple(str(axis) for axis in image.dims if axis != "channel")
    grey = lazy_image(GreySource(image), dims)
    grey.attrs = dict(image.attrs)
    return grey


@dataclass(frozen=True, slots=True, eq=False)
class GreySource:
    """Luminance of an image of red, green and blue, a `Source`."""

    image: xr.DataArray

    @property
    def path(self) -> Path:
        return Path(str(self.image.attrs.get("source", "image")))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(n for axis, n in self.image.sizes.items() if axis != "channel")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype

    @property
    def chunks(self) -> tuple[int, ...] | None:
        chunks = self.image.encoding.get("preferred_chunks")
        return tuple(chunks[axis] for axis in self.image.dims if axis != "channel") if chunks else None

    @property
    def decoding_bytes(self) -> int:
        return int(self.image.encoding.get(DECODING_KEY, 0))

    def read(self, key: Key) -> NDArray[Any]:
        dims = [str(axis) for axis in self.image.dims if axis != "channel"]
        part = self.image.isel(dict(zip(dims, key, strict=True))).transpose("channel", *dims).to_numpy()
        # One colour after the other, so that no copy of all three in float64 is in memory.
        total = np.zeros(part.shape[1:], np.float64)
        for weight, colour in zip(_WEIGHTS, part[:3], strict=True):
            total += weight * colour
        return total.astype(self.dtype) if self.dtype.kind == "f" else np.rint(total).astype(self.dtype)
