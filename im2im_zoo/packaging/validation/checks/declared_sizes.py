"""Sizes that an RDF declares for its tensors, and arrays made of the test tensors in those sizes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.package import Package

Shape = tuple[int | None, ...]


def declared_shape(tensor: Any, n: int) -> Shape | None:
    """Return the tensor's shape at `min + n * step`, None where it is the test tensor's; None if sizes refer elsewhere."""
    from bioimageio.spec.model import v0_5 as spec

    shape: list[int | None] = []
    for axis in tensor.axes:
        size = getattr(axis, "size", None)
        if axis.type == "batch" or size is None:
            shape.append(None)
        elif isinstance(size, spec.ParameterizedSize):
            shape.append(size.min + n * size.step)
        elif isinstance(size, int):
            shape.append(size)
        else:
            return None
    return tuple(shape)


def off_grid_shape(tensor: Any) -> Shape | None:
    """Return a shape one voxel above `min + step` along axes with a step larger than 1; None if there are none."""
    from bioimageio.spec.model import v0_5 as spec

    shape = declared_shape(tensor, 1)
    if shape is None:
        return None
    coarse = [
        isinstance(s := getattr(a, "size", None), spec.ParameterizedSize) and s.step > 1 for a in tensor.axes
    ]
    if not any(coarse):
        return None
    return tuple(n + 1 if off and n is not None else n for n, off in zip(shape, coarse, strict=True))


def wrong_size(
    output: NDArray[Any], tensor: Any, package: Package, inputs: Sequence[NDArray[Any]]
) -> str | None:
    """Return a message if an output has another size than its references to an input's axes declare, else None."""
    from bioimageio.spec.model import v0_5 as spec

    if output.ndim != len(tensor.axes):
        return f"its output {tensor.id} has {output.ndim} axes; by the RDF there are {len(tensor.axes)}"
    sizes = {
        (str(t.id), str(axis.id)): (axis, size)
        for t, array in zip(package.inputs, inputs, strict=True)
        for axis, size in zip(t.axes, array.shape, strict=True)
    }
    for axis, have in zip(tensor.axes, output.shape, strict=True):
        size = getattr(axis, "size", None)
        if not isinstance(size, spec.SizeReference):
            continue
        known = sizes.get((str(size.tensor_id), str(size.axis_id)))
        if known is None:
            continue
        reference, n = known
        expected = int(
            n * getattr(reference, "scale", 1.0) / getattr(axis, "scale", 1.0) + size.offset + 1e-6
        )
        if have != expected:
            return f"its output {tensor.id} has {have} voxels along {axis.id}; by the RDF it is {expected}"
    return None


def resized(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return the array, cut or mirrored to a shape."""
    cut = array[tuple(slice(n) for n in shape)]
    widths = [(0, n - have) for n, have in zip(shape, cut.shape, strict=True)]
    return np.ascontiguousarray(np.pad(cut, widths, mode="reflect"))
