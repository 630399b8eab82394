"""Joining the channels of several images of the same place, lazily."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.lazy import DECODING_KEY, Key, lazy_image
from im2im_zoo.images.metadata import pixel_size_um

# Relative difference up to which two pixel sizes are taken for the same.
PIXEL_TOLERANCE = 0.01


def join_channels(images: Sequence[xr.DataArray], names: Sequence[str]) -> xr.DataArray:
    """Return one image of all channels, of the type that holds the values of all.

    Args:
        images: lazy, of the same axes except the channel, in any order; one without that axis is one channel.
        names: of each image, after which channels are called that have no name of their own, or share it.

    Returns:
        A lazy image, axes channel and those of the first; `sources_of` gives all its files.

    Raises:
        ImageError: images of other axes, sizes or pixel sizes.
    """
    first = images[0]
    others = [str(axis) for axis in first.dims if axis != "channel"]
    _check_alike(images, others)
    parts = tuple(i.transpose(*[a for a in ("channel", *others) if a in i.dims]) for i in images)
    joined = lazy_image(JoinedSource(parts), ("channel", *others))
    sources = [source for image in images for source in sources_of(image)]
    joined.attrs = dict(first.attrs) | {"source": " + ".join(sources), "sources": tuple(sources)}
    chunks = first.encoding.get("preferred_chunks")
    if chunks is not None:
        joined.encoding["preferred_chunks"] = dict(chunks) | {"channel": 1}
        joined.encoding[DECODING_KEY] = sum(image.encoding.get(DECODING_KEY, 0) for image in images)
    return joined.assign_coords(channel=np.array(_channel_names(images, names), np.str_))


def sources_of(image: xr.DataArray) -> tuple[str, ...]:
    """Return the files or addresses of an image: one, several if it was joined, none for an image in memory."""
    known = image.attrs.get("sources", (image.attrs["source"],) if "source" in image.attrs else ())
    return tuple(map(str, known))


def _channel_names(images: Sequence[xr.DataArray], names: Sequence[str]) -> list[str]:
    """Return the channels' own names where no two share one; else those of the images, numbered if they have several."""
    own = [
        [str(n) for n in image["channel"].values]
        if "channel" in image.coords
        else _numbered(name, _count(image))
        for image, name in zip(images, names, strict=True)
    ]
    times = Counter(word for words in own for word in words)
    return [
        f"{name} {word}" if times[word] > 1 else word
        for words, name in zip(own, names, strict=True)
        for word in words
    ]


def _count(image: xr.DataArray) -> int:
    return image.sizes.get("channel", 1)


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name} {number}" for number in range(count)]


def _check_alike(images: Sequence[xr.DataArray], axes: Sequence[str]) -> None:
    sizes = [{str(a): n for a, n in image.sizes.items() if a != "channel"} for image in images]
    if any(size != sizes[0] for size in sizes):
        lines = [f"{_name(i)}: {size}" for i, size in zip(images, sizes, strict=True)]
        raise ImageError(
            "images whose channels are to be joined have different sizes; crop or resample one:\n"
            + _lines(lines)
        )
    for axis in axes:
        known = {n: size for n, i in enumerate(images) if (size := pixel_size_um(i).get(axis))}
        if known and max(known.values()) - min(known.values()) > PIXEL_TOLERANCE * max(known.values()):
            lines = [f"{_name(images[n])}: {size:g} µm" for n, size in known.items()]
            raise ImageError(
                f"images whose channels are to be joined have different pixel sizes along {axis}; register them, or correct the one that "
                "is wrong:\n" + _lines(lines)
            )


def _name(image: xr.DataArray) -> str:
    return str(image.attrs.get("source", "an image in memory"))


def _lines(words: Sequence[str]) -> str:
    return "\n".join(f"  {word}" for word in words)


@dataclass(frozen=True, slots=True)
class JoinedSource:
    """Voxels of images one behind the other along their first axis, a `Source`; only the images that are needed are read."""

    images: tuple[xr.DataArray, ...]

    @property
    def path(self) -> Path:
        return Path(_name(self.images[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.images[0]
        return (sum(map(_count, self.images)), *(n for a, n in first.sizes.items() if a != "channel"))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(image.dtype for image in self.images))

    def read(self, key: Key) -> NDArray[Any]:
        asked, *place = key
        numbers = range(self.shape[0])[asked]
        owners = [(i, c) for i, image in enumerate(self.images) for c in range(_count(image))]
        parts: list[NDArray[Any]] = []
        # Channels of one file that follow each other are read at once, as files have them.
        for number, image in enumerate(self.images):
            own = [owners[n][1] for n in numbers if owners[n][0] == number]
            if own:
                step = own[1] - own[0] if len(own) > 1 else 1
                parts.append(self._part(image, slice(own[0], own[-1] + 1, step), place))
        if not parts:
            parts = [self._part(self.images[0], slice(0, 1), place)[:0]]
        return np.concatenate(parts)

    def _part(self, image: xr.DataArray, channels: slice, place: Sequence[slice]) -> NDArray[Any]:
        with_channel = "channel" in image.dims
        keys = (channels, *place) if with_channel else tuple(place)
        read = image.isel(dict(zip(map(str, image.dims), keys, strict=True))).to_numpy()
        return (read if with_channel else read[None]).astype(self.dtype, copy=False)
