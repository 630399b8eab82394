"""Regions of preprocessed images: of files that are mapped, or made as they are read from the images themselves. No patches."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.cache.values import checked_float32
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.processing import Pipeline
from im2im_zoo.processing.blocks import read

# Each map keeps a file open, and systems allow as few as 256.
_OPEN_MAPS = 96


@dataclass(frozen=True, slots=True, eq=False)
class RawImage:
    """An image as its file has it, lazy, and what is done to each region of it as it is read.

    The statistics in `pipeline` are those of the whole image, so a region is the same as that of the whole, processed.
    """

    array: xr.DataArray
    pipeline: Pipeline
    side: Side

    def read(self, corner: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """A region, all channels first, float32, C order.

        Raises:
            DataError: values that training cannot take.
            ImageError: the file cannot be read any more.
        """
        space = [str(axis) for axis in self.array.dims if axis != "channel"]
        region = {a: slice(c, c + n) for a, c, n in zip(space, corner, size, strict=True)}
        made = self.pipeline(read(self.array, region)).transpose(*self.array.dims)
        return checked_float32(made.to_numpy(), str(self.array.attrs.get("source")), self.side)


Stored: TypeAlias = Path | RawImage
"""A preprocessed image: a `.npy` file of float32, axes channel, (z,) y, x, in C order; or one made as it is read."""


class Reader:
    """Regions of stored images; the maps of the latest used files are kept open. Pickled, it is empty.

    Args:
        open_maps: how many files at most.
    """

    def __init__(self, open_maps: int = _OPEN_MAPS) -> None:
        self._open_maps = open_maps
        self._maps: OrderedDict[Path, NDArray[np.float32]] = OrderedDict()

    def read(self, image: Stored, corner: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """The region at `corner`, which counts space axes alone: all channels, a copy in C order."""
        if isinstance(image, RawImage):
            return np.ascontiguousarray(image.read(corner, size))
        region = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
        return np.array(self._map(image)[(slice(None), *region)], order="C", copy=True, subok=False)

    def forget(self) -> None:
        """Let go of all files, so that those which are removed free their space."""
        self._maps.clear()

    def _map(self, file: Path) -> NDArray[np.float32]:
        array = self._maps.get(file)
        if array is None:
            array = self._maps[file] = _mapped(file)
            if len(self._maps) > self._open_maps:
                self._maps.popitem(last=False)
        else:
            self._maps.move_to_end(file)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_maps": OrderedDict()}  # a pickled map would be the whole image


def _mapped(file: Path) -> NDArray[np.float32]:
    try:
        array: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{file} was removed from the cache while it was used: start again, and leave the folder alone meanwhile"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} in the cache is damaged ({error}): remove it, and it is made anew"
        ) from error
    return array
