"""Regions of preprocessed images: read from memory-mapped files, or from the raw image and preprocessed when they are read."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.sizes import LARGEST_WHOLE
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.processing import Pipeline
from im2im_zoo.processing.blocks import read

# Each map keeps a file open, and some systems allow only 256.
_OPEN_MAPS = 96


@dataclass(frozen=True, slots=True, eq=False)
class LazyPreprocessedImage:
    """A raw image whose regions are preprocessed when they are read.

    `pipeline` has the statistics of the whole image, so a region equals that of the preprocessed whole.

    Attributes:
        array: lazy.
        pipeline: the fitted operations.
        side: input, target or cost.
    """

    array: xr.DataArray
    pipeline: Pipeline
    side: Side

    def read(self, corner: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """Read and preprocess a region: float32, channel first, C order.

        Args:
            corner, size: voxels along the space axes.

        Raises:
            DataError: values that training cannot use.
            ImageError: the file cannot be read any more.
        """
        space = [str(axis) for axis in self.array.dims if axis != "channel"]
        region = {a: slice(c, c + n) for a, c, n in zip(space, corner, size, strict=True)}
        made = self.pipeline(read(self.array, region)).transpose(*self.array.dims)
        return convert_to_float32(made.to_numpy(), str(self.array.attrs.get("source")), self.side)


StoredImage: TypeAlias = Path | LazyPreprocessedImage
"""A preprocessed image: a `.npy` file of float32, axes channel, (z,) y, x, in C order; or one preprocessed when it is read."""


class RegionReader:
    """Reader of regions of stored images; keeps the maps of the most recently used files open, but does not pickle them.

    Args:
        open_maps: how many files at most.
    """

    def __init__(self, open_maps: int = _OPEN_MAPS) -> None:
        self._open_maps = open_maps
        self._maps: OrderedDict[Path, NDArray[np.float32]] = OrderedDict()

    def read(self, image: StoredImage, corner: Sequence[int], size: Sequence[int]) -> NDArray[np.float32]:
        """Read a region with all channels, as a copy in C order.

        Args:
            image: the image.
            corner, size: voxels along the space axes.
        """
        if isinstance(image, LazyPreprocessedImage):
            return np.ascontiguousarray(image.read(corner, size))
        region = tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))
        return np.array(self._map(image)[(slice(None), *region)], order="C", copy=True, subok=False)

    def forget(self) -> None:
        """Close all files, so that removed ones free their space."""
        self._maps.clear()

    def _map(self, file: Path) -> NDArray[np.float32]:
        array = self._maps.get(file)
        if array is None:
            array = self._maps[file] = _map_file(file)
            if len(self._maps) > self._open_maps:
                self._maps.popitem(last=False)
        else:
            self._maps.move_to_end(file)
        return array

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_maps": OrderedDict()}  # a pickled map would be the whole image


def _map_file(file: Path) -> NDArray[np.float32]:
    try:
        array: NDArray[np.float32] = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise DataError(
            f"{file} was removed from the cache while it was in use: start again, and do not change the folder meanwhile"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} in the cache is damaged ({error}): remove it, and it is created again"
        ) from error
    return array


def convert_to_float32(values: NDArray[np.generic], source: str, side: Side) -> NDArray[np.float32]:
    """Convert preprocessed values to float32, and check that training can use them.

    Args:
        values: of any shape.
        source: their file, for messages.
        side: kind of image.

    Raises:
        DataError: labels that would merge, a cost below 0, values that are not finite.
    """
    if (
        side != "cost"
        and values.dtype.kind in "iu"
        and max(int(values.max()), -int(values.min())) > LARGEST_WHOLE
    ):
        raise DataError(
            f"{source}: float32 cannot represent all values above {LARGEST_WHOLE}, so labels would merge; "
            f"relabel the image from 1, or scale it in {side}.preprocessing"
        )
    result = values.astype(np.float32)
    if side == "cost" and not (np.isfinite(result) & (result >= 0)).all():
        raise DataError(
            f"{source}: a cost map weighs each voxel, so its values have to be finite and at least 0; "
            "correct the file, or choose another channel of it in data.cost_channels"
        )
    if not np.isfinite(result).all():
        raise DataError(
            f"{source}: values are not finite (NaN or infinite) after {side}.preprocessing; replace them "
            "in the file, for instance by 0"
        )
    return result
