"""Tiles of the inputs and outputs of a network: sizes, positions and copies.

Positions and sizes are in voxels of the reference (`tensor_axis`); each tensor's own follow from its `TensorAxis`. A tile begins at a
multiple of its axis' step, and so it begins at a whole voxel of each tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis

Tensors = Sequence[NDArray[Any] | None]
# One array for each input (None: an optional one that is not given) to one for each output.
Run = Callable[[list[NDArray[Any] | None]], list[NDArray[Any]]]


@dataclass(frozen=True, slots=True)
class Cut:
    """A tile along one axis, of `size` voxels from `begin`; it may extend beyond the end of the image."""

    axis: NetworkAxis
    begin: int
    size: int


def at_least(axis: NetworkAxis, size: int) -> int:
    """Return the smallest valid size along an axis that is `size` or more; the minimum if it is fixed."""
    return axis.minimum + (0 if axis.fixed else max(0, -(-(size - axis.minimum) // axis.step)) * axis.step)


def at_most(axis: NetworkAxis, size: int) -> int:
    """Return the largest valid size along an axis that is `size` or less, or the minimum."""
    return axis.minimum + (0 if axis.fixed else max(0, (size - axis.minimum) // axis.step) * axis.step)


def size_along(inputs: Tensors, axis: NetworkAxis) -> int:
    """Return the size of some inputs along an axis, voxels of the reference.

    Raises:
        PackageError: no given input has the axis at the scale of the reference.
    """
    for array, port in zip(inputs, axis.inputs, strict=True):
        if array is not None and port is not None and port.scale == 1 and port.offset == 0:
            return int(array.shape[port.dim])
    raise PackageError(
        f"none of the given inputs has the {axis.name} axis at full size; give the first input that has it"
    )


def part(inputs: Tensors, cuts: Sequence[Cut]) -> list[NDArray[Any] | None]:
    """Return contiguous copies of the inputs of a tile; beyond the end a tensor is mirrored about its last voxel."""
    result: list[NDArray[Any] | None] = []
    for index, array in enumerate(inputs):
        for cut in cuts:
            port = cut.axis.inputs[index]
            if array is not None and port is not None:
                places = int(cut.begin * port.scale) + np.arange(port.size(cut.size))
                array = np.take(array, _mirrored(places, array.shape[port.dim]), axis=port.dim)
        result.append(None if array is None else np.ascontiguousarray(array))
    return result


def _mirrored(places: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    places = places % max(1, 2 * (size - 1))
    mirrored: NDArray[np.int64] = np.where(places < size, places, 2 * (size - 1) - places)
    return mirrored


def first_voxel(cut: Cut, port: TensorAxis) -> int:
    """Return the position of a tile's output in the output of the whole image."""
    return int(cut.begin * port.scale)


def starts(port: TensorAxis, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the starts of voxels of a tensor, rounded down to voxels of the reference."""
    scale = port.scale
    result: NDArray[np.int64] = (voxels + port.shift) * scale.denominator // scale.numerator
    return result


def stops(port: TensorAxis, voxels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ends of voxels of a tensor, rounded up to voxels of the reference."""
    scale = port.scale
    result: NDArray[np.int64] = -(-(voxels + 1 + port.shift) * scale.denominator // scale.numerator)
    return result
