"""Lazy images with the operations before a statistic, and the checks that all statistics share."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.processing.blocks import names, positions, read, tensor_name

# A statistic of this many values is one per voxel, and no longer a statistic: 128 MiB of float64.
MAX_VALUES = 2**24


@dataclass(frozen=True)
class Source:
    """A lazy image and the operations before the one that wants statistics.

    `whole_axes`: axes along which `transform` mixes voxels, so that a block must not cut them.
    """

    image: xr.DataArray
    transform: Callable[[xr.DataArray], xr.DataArray]
    whole_axes: frozenset[str] = frozenset()


def kept_sizes(sources: Sequence[Source], reduced: Sequence[str]) -> dict[str, int]:
    """Return the sizes of the axes along which the statistic varies.

    Raises:
        ProcessingError: they differ between sources, an image is empty, or the statistic would have too many values.
    """
    first = sources[0].image
    kept = {a: first.sizes[a] for a in names(first) if a not in reduced}
    for source in sources:
        image = source.image
        if image.size == 0:
            raise ProcessingError(f"tensor {tensor_name(image)} has no voxels: {dict(image.sizes)}")
        sizes = {a: image.sizes[a] for a in names(image) if a not in reduced}
        if sizes != kept or not set(reduced) <= set(names(image)):
            raise ProcessingError(
                f"tensors {tensor_name(first)} {dict(first.sizes)} and {tensor_name(image)} {dict(image.sizes)} "
                f"cannot share statistics over {list(reduced)}: their other axes must have equal sizes"
            )
    if math.prod(kept.values()) > MAX_VALUES:
        raise ProcessingError(
            f"statistics over {list(reduced)} of tensor {tensor_name(first)} {dict(first.sizes)} are "
            f"{math.prod(kept.values())} values, more than {MAX_VALUES}: add space axes to the operation's axes"
        )
    return kept


def over_kept(kept: Mapping[str, int], sources: Sequence[Source], values: NDArray[Any]) -> xr.DataArray:
    """Return the values of a statistic as an array over the kept axes, with integer positions."""
    image = sources[0].image
    return xr.DataArray(
        values.astype(np.float64), dims=tuple(kept), coords={a: positions(image, a) for a in kept}
    )


def whole_sizes(source: Source) -> dict[str, int]:
    """Return the sizes of the axes that a block must not cut."""
    return {a: source.image.sizes[a] for a in source.whole_axes if a in source.image.dims}


def dtype_after(source: Source) -> np.dtype[Any]:
    """Return the dtype that `transform` gives, found on one voxel."""
    if getattr(source.transform, "steps", None) == ():
        return source.image.dtype
    one = {a: slice(0, source.image.sizes[a] if a in source.whole_axes else 1) for a in names(source.image)}
    return source.transform(read(source.image, one)).dtype


def check_finite(source: Source, finite: bool | np.bool_) -> None:
    """Refuse values without statistics.

    Raises:
        ProcessingError: `finite` is false.
    """
    if not finite:
        raise ProcessingError(
            f"tensor {tensor_name(source.image)} holds NaN, infinite or overflowing values, so it has no "
            "statistics: replace them before (for instance by 0)"
        )
