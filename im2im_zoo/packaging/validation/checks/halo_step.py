"""Check that each declared halo keeps the tiles of other programs on the grid of the network's pooling.

deepImageJ, and bioimageio.core on whole images, pad an image by its halo before the network sees it. A halo that is no
multiple of the network's step moves its pooling windows, and changes the output everywhere, not only at the border.
"""

import math
from collections.abc import Iterator
from typing import Any

from im2im_zoo.package import Package
from im2im_zoo.packaging.validation.findings import Finding


def check_halo_step(package: Package) -> list[Finding]:
    """Return a warning for each halo that is no multiple of its axis' step, or whose `min - 2 * halo` is none.

    Axes whose size is fixed, or does not refer to an input, have no step. The step of an output axis is that of its input axis,
    in voxels of the output.
    """
    return [
        Finding("warning", "halo_step", f"outputs[{i}].axes[{k}].halo", message)
        for i, output in enumerate(package.outputs)
        for k, axis in enumerate(output.axes)
        for message in _off_grid(package, axis)
    ]


def _off_grid(package: Package, axis: Any) -> Iterator[str]:
    halo, source = int(getattr(axis, "halo", 0)), _source(package, axis)
    if not halo or source is None:
        return
    least, step = source.size.min, source.size.step
    ratio = float(getattr(source, "scale", 1.0)) / float(getattr(axis, "scale", 1.0))
    inside = halo / ratio
    if not _is_multiple(inside, step):
        enough = math.ceil(inside / step - 1e-9) * step
        yield (
            f"the halo along {axis.id} is {halo}, no multiple of the network's step of {step * ratio:g}: programs that pad an image "
            f"by it (deepImageJ, bioimageio.core on whole images) give other numbers everywhere; declare "
            f"{round(enough * ratio)}, and a min of at least {2 * enough + step}"
        )
    elif not _is_multiple(least - 2 * inside, step):
        yield (
            f"along {axis.id} the smallest size {least} without its halo, {least - 2 * inside:g}, is no multiple of the network's "
            f"step of {step}: programs that cut an image into such tiles give other numbers; declare a min that is a multiple of {step}"
        )


def _is_multiple(number: float, step: int) -> bool:
    return abs(number - round(number / step) * step) < 1e-6


def _source(package: Package, axis: Any) -> Any | None:
    """Return the axis of an input that the size of an output's axis refers to, if its sizes have a step."""
    size = getattr(axis, "size", None)
    for tensor in package.inputs:
        for other in tensor.axes:
            same = (str(tensor.id), str(other.id)) == (
                str(getattr(size, "tensor_id", "")),
                str(getattr(size, "axis_id", "")),
            )
            if same and hasattr(getattr(other, "size", None), "step"):
                return other
    return None
