"""Several images of the same place as one: their channels one after the other, named. Lazy; processes nothing."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.data.files import list_files
from im2im_zoo.errors import DataError
from im2im_zoo.images import pixel_size_um
from im2im_zoo.images.lazy import lazy_image

# Relative difference up to which two pixel sizes are taken for the same.
PIXEL_TOLERANCE = 0.01


def join_channels(images: Sequence[xr.DataArray], names: Sequence[str]) -> xr.DataArray:
    """One image of all channels, of the type that holds the values of all.

    Args:
        images: lazy, axes channel, (z,) y, x.
        names: of each image, after which channels are called that have no name of their own, or share it.

    Raises:
        DataError: images of other sizes or pixel sizes.
    """
    first = images[0]
    _check_alike(images)
    source = _Joined(tuple(images))
    joined = lazy_image(source, tuple(map(str, first.dims)))
    joined.attrs = dict(first.attrs) | {"source": " + ".join(str(i.attrs.get("source")) for i in images)}
    chunks = first.encoding.get("preferred_chunks")
    if chunks is not None:
        joined.encoding["preferred_chunks"] = dict(chunks) | {"channel": 1}
    return joined.assign_coords(channel=np.array(_channel_names(images, names), np.str_))


def _channel_names(images: Sequence[xr.DataArray], names: Sequence[str]) -> list[str]:
    """The channels' own names where they have some and share none; else those of the images, numbered if they have several."""
    own = [
        [str(n) for n in image["channel"].values]
        if "channel" in image.coords
        else _numbered(name, image.sizes["channel"])
        for image, name in zip(images, names, strict=True)
    ]
    times = Counter(word for words in own for word in words)
    return [
        f"{name} {word}" if times[word] > 1 else word
        for words, name in zip(own, names, strict=True)
        for word in words
    ]


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name} {number}" for number in range(count)]


def _check_alike(images: Sequence[xr.DataArray]) -> None:
    sizes = [{str(a): n for a, n in image.sizes.items() if a != "channel"} for image in images]
    if any(size != sizes[0] for size in sizes):
        lines = [f"{i.attrs.get('source')}: {size}" for i, size in zip(images, sizes, strict=True)]
        raise DataError(
            "data.input: images whose channels are to be joined have other sizes; crop or resample one:\n"
            f"{list_files(lines)}"
        )
    for axis in sizes[0]:
        known = [(size, i) for i in images if (size := pixel_size_um(i).get(axis))]
        if known and max(known)[0] - min(known)[0] > PIXEL_TOLERANCE * max(known)[0]:
            lines = [f"{i.attrs.get('source')}: {size:g} µm" for size, i in known]
            raise DataError(
                f"data.input: images whose channels are to be joined have other pixel sizes along {axis}; register them, or correct "
                f"the one that is wrong:\n{list_files(lines)}"
            )


@dataclass(frozen=True, slots=True)
class _Joined:
    """The voxels of images one behind the other along their first axis; of those that are not asked for, nothing is read."""

    images: tuple[xr.DataArray, ...]

    @property
    def path(self) -> Path:
        return Path(str(self.images[0].attrs.get("source")))

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(image.shape[0] for image in self.images), *self.images[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(image.dtype for image in self.images))

    def read(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        asked, *place = key
        numbers = [asked] if isinstance(asked, int) else range(*asked.indices(self.shape[0]))
        owners = [(i, c) for i, image in enumerate(self.images) for c in range(image.shape[0])]
        parts: list[NDArray[Any]] = []
        # Channels of one file that follow each other are read at once, as files have them.
        for number, image in enumerate(self.images):
            own = [owners[n][1] for n in numbers if owners[n][0] == number]
            if own:
                step = own[1] - own[0] if len(own) > 1 else 1
                channels = slice(own[0], own[-1] + 1, step)
                region = dict(zip(map(str, image.dims), (channels, *place), strict=True))
                parts.append(image.isel(region).to_numpy().astype(self.dtype, copy=False))
        if not parts:
            parts = [np.empty((0, *self.images[0][(slice(0, 1), *place)].shape[1:]), self.dtype)]
        found = np.concatenate(parts)
        return found[0] if isinstance(asked, int) else found
