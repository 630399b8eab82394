"""Sizes that weights take and that the RDF does not state: of an ONNX file that was exported for one size."""

from collections.abc import Sequence
from dataclasses import replace

from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout
from im2im_zoo.runtime.layout.tiling import Grid

Shapes = Sequence[Sequence[int | None]]


def restrict_to_shapes(layout: Layout, shapes: Shapes | None) -> Layout:
    """Return a layout whose axes have the only sizes that the weights take, whatever sizes the RDF states.

    Args:
        layout: of the images, by the RDF.
        shapes: of the inputs, None where any length is taken; None if the weights do not state any.
    """
    if shapes is None or len(shapes) != len(layout.inputs):
        return layout
    maps = tuple(_restricted(axis, shapes) for axis in layout.maps)
    return layout if maps == layout.maps else replace(layout, maps=maps)


def _restricted(axis: AxisMap, shapes: Shapes) -> AxisMap:
    if axis.network is None or axis.grid is None:
        return axis
    sizes = set()
    for place, shape in zip(axis.network.inputs, shapes, strict=True):
        if place is None or place.dim >= len(shape) or (length := shape[place.dim]) is None:
            continue
        sizes.add((length - place.offset) / place.scale)
    if len(sizes) != 1 or (size := sizes.pop()).denominator != 1 or size < 1:
        return axis
    if axis.grid.fixed and axis.grid.minimum == size:
        return axis
    grid = Grid.of_fixed_size(int(size))
    network = replace(axis.network, minimum=grid.minimum, step=grid.step, fixed=True)
    note = f"the weights take only {grid.minimum}, although the RDF states other sizes"
    return replace(axis, grid=grid, network=network, note=note)
