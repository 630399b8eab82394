"""Which axis of the images is which axis of a model's tensors, by name. Sizes and names only: no voxel is read.

The result, and what the roles of axes are, is in `layout`; where an axis is in each tensor `tensor_sizes` reads from the RDF.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xarray as xr

from im2im_zoo.core.axes import AXES
from im2im_zoo.core.errors import PlanError
from im2im_zoo.runtime.layout.image_layout import AxisMap, InputMap, Layout, OutputMap, PadMode, Role
from im2im_zoo.runtime.layout.tensor_sizes import SizedAxis, Tensor, network_axes, tensors_of

if TYPE_CHECKING:
    from im2im_zoo.package import Package


def images_by_input(
    package: "Package", images: xr.DataArray | Mapping[str, xr.DataArray]
) -> dict[str, xr.DataArray]:
    """The image of each input tensor, by its id; one image alone is that of the first input that is not optional.

    Raises:
        PlanError: an id that no input has, or an input without an image that the model cannot do without.
    """
    if isinstance(images, xr.DataArray):
        images = {main_input(package): images}
    known = [str(t.id) for t in package.inputs]
    unknown = sorted(set(images) - set(known))
    if unknown:
        raise PlanError(
            f"{package.name} has no input {', '.join(unknown)}; its inputs are {', '.join(known)}"
        )
    missing = [str(t.id) for t in package.inputs if not t.optional and str(t.id) not in images]
    if missing:
        have = f"{', '.join(images)} is given" if images else "none is given"
        raise PlanError(
            f"{package.name} has the inputs {', '.join(known)}, and {have}: give the image of {missing[0]} with "
            f"--input {missing[0]}=PATH"
        )
    return {name: images[name] for name in known if name in images}


def main_input(package: "Package") -> str:
    """The id of the input that an image which is given without a name is for: the first that is not optional."""
    return str(next((t for t in package.inputs if not t.optional), package.inputs[0]).id)


def map_axes(package: "Package", images: xr.DataArray | Mapping[str, xr.DataArray]) -> Layout:
    """Bring images and model together.

    The maps are those looped over in the images' order, then those of the input tensors in their order.

    Args:
        package: the model.
        images: by input tensor; or the image of the main one.

    Raises:
        PlanError: images or sizes that the model does not take; the message says why.
    """
    given = images_by_input(package, images)
    tensors = tensors_of(package)
    for tensor in tensors.inputs:
        if tensor.id in given:
            _check_image(package, tensor, given[tensor.id])
    present = [t for t in tensors.inputs if t.id in given]
    loops = _loops(package, present, given)
    axes = network_axes(package, tensors, set(given))
    maps = [
        AxisMap(a, "loop", n, f"the model has no {a} axis: it runs at each of the {n}")
        for a, n in loops.items()
    ]
    for name in dict.fromkeys(a for t in present for a in t.axes):
        if name == "batch":
            maps.append(AxisMap("batch", "batch", 1, _batch_note(loops), in_image=False))
        elif name == "channel":
            maps.append(_channel(package, present, given))
        else:
            maps.append(_network_axis(package, axes[name], present, given))
    _check_sizes(package, present, given, {m.name: m for m in maps})
    inputs = tuple(_input_map(package, t, given.get(t.id)) for t in tensors.inputs)
    outputs = tuple(_output_map(package, number, t, maps, given) for number, t in enumerate(tensors.outputs))
    return Layout(tuple(maps), inputs, outputs)


def _check_image(package: "Package", tensor: Tensor, image: xr.DataArray) -> None:
    names = [str(a) for a in image.dims]
    unknown = [n for n in names if n not in AXES]
    if unknown:
        raise PlanError(
            f"{package.name}: the image of {tensor.id} has axes {', '.join(names)}; {', '.join(unknown)} is none of "
            f"{', '.join(AXES)}"
        )
    if 0 in image.shape:
        shape = ", ".join(f"{a} {n}" for a, n in image.sizes.items())
        raise PlanError(f"the image has no voxels: {shape}")


def _loops(
    package: "Package", present: Sequence[Tensor], images: Mapping[str, xr.DataArray]
) -> dict[str, int]:
    """Axes of the images that their tensors do not have, with their sizes, in the order in which they are met."""
    taken = {a for t in present for a in t.axes} - {"batch"}
    loops: dict[str, int] = {}
    for tensor in present:
        for axis, size in images[tensor.id].sizes.items():
            name = str(axis)
            if name in tensor.axes and name != "batch":
                continue
            if name in taken:
                raise PlanError(
                    f"{package.name}: the image of {tensor.id} has an axis {name}, which the model takes of another input but "
                    f"not of this one; give one {name} position of it, or say with --axes what the axis is"
                )
            if loops.setdefault(name, int(size)) != int(size):
                raise PlanError(
                    f"{package.name}: the image of {tensor.id} has {size} positions along {name}, another input's image "
                    f"{loops[name]}; they must be equal"
                )
    return loops


def _batch_note(loops: Mapping[str, int]) -> str:
    return "one sample at a time" + (": the image's batch is looped over" if "batch" in loops else "")


def _channel(package: "Package", present: Sequence[Tensor], images: Mapping[str, xr.DataArray]) -> AxisMap:
    notes, size, has = [], 1, False
    for tensor in present:
        wanted = tensor.channels
        if wanted is None:
            continue
        image = images[tensor.id]
        prefix = f"{tensor.id}: " if len(present) > 1 else ""
        notes.append(prefix + _channel_note(package, tensor, wanted, image))
        if not has:
            size, has = len(wanted), "channel" in image.dims
    return AxisMap("channel", "channel", size, "; ".join(notes), in_image=has)


def _channel_note(package: "Package", tensor: Tensor, wanted: Sequence[str], image: xr.DataArray) -> str:
    if "channel" not in image.dims:
        if len(wanted) != 1:
            raise PlanError(
                f"{package.name} takes {len(wanted)} channels ({', '.join(wanted)}), but the image has no channel axis; "
                "if one of its axes holds the channels, say so with --axes; if they lie in files of their own, add those with --join"
            )
        return f"the image has none: it is taken for {wanted[0]!r}"
    count = image.sizes["channel"]
    names = [str(n) for n in image.coords["channel"].values] if "channel" in image.coords else []
    if count != len(wanted):
        listed = f" ({', '.join(names)})" if names else ""
        many, few = "choose with --channels, in the model's order", "add the files of the others with --join"
        raise PlanError(
            f"{package.name} takes {len(wanted)} channel{'s' * (len(wanted) > 1)} ({', '.join(wanted)}), but the image "
            f"has {count}{listed}; {many if count > len(wanted) else few}"
        )
    return ", ".join(f"{a} as {b!r}" for a, b in zip(names or range(count), wanted, strict=True))


def _network_axis(
    package: "Package", axis: SizedAxis, present: Sequence[Tensor], images: Mapping[str, xr.DataArray]
) -> AxisMap:
    name, grid = axis.network.name, axis.grid
    image = images[axis.reference]
    size = image.sizes.get(name)
    takes = f"{grid.minimum} only" if grid.fixed else f"{grid.minimum} + n * {grid.step}"
    # One plane is no volume and one frame no movie; a narrow image is still one, and is mirrored.
    if (size is None or (size == 1 and name not in ("y", "x"))) and grid.at_least(1) != 1:
        has = "no" if size is None else "one plane along"
        raise PlanError(
            f"{package.name} needs at least {grid.minimum} voxels along {name}, but the image has {has} {name}: "
            f"use a model for images without {name}, or say with --axes which axis is {name}"
        )
    count = int(size or 1)
    role: Role = "index" if name == "index" else "tile" if axis.cut else "whole"
    if role == "index" and (count not in grid or (grid.fixed and count != grid.minimum)):
        raise PlanError(f"{package.name} takes {takes} along {name}, but the image has {count}")
    if role == "whole" and grid.fixed and count + 2 * axis.crop > grid.minimum:
        raise PlanError(
            f"{package.name} takes {grid.minimum} voxels along {name} only, and cannot be run in tiles along it, as the output "
            f"{axis.uncut_by} does not follow it; the image has {count}: crop it, or resample it with --rescale"
        )
    note = f"the network takes {takes}" + ("" if size else "; the image has none: one plane is added")
    if role == "whole":
        note += f"; it is not cut, as the output {axis.uncut_by} does not follow it"
    if axis.crop:
        note += f"; it crops {axis.crop} at each end: the image is mirrored there"
    return AxisMap(
        name, role, count, note, grid, axis.network, axis.crop, axis.declared_halo, size is not None
    )


def _check_sizes(
    package: "Package",
    present: Sequence[Tensor],
    images: Mapping[str, xr.DataArray],
    maps: Mapping[str, AxisMap],
) -> None:
    """The images of all inputs show the same field."""
    for number, tensor in enumerate(present):
        for name in tensor.axes:
            axis = maps[name]
            if axis.network is None:
                continue
            port = axis.network.inputs[[t.id for t in tensors_of(package).inputs].index(tensor.id)]
            if port is None:
                continue
            have = int(images[tensor.id].sizes.get(name, 1))
            exact = axis.size * port.scale
            if have not in (int(exact), -(-exact.numerator // exact.denominator)):
                other = next(t.id for t in present[: number + 1] if name in t.axes)
                raise PlanError(
                    f"{package.name}: the image of {tensor.id} has {have} voxels along {name}, but {int(exact)} are needed beside "
                    f"the {axis.size} of {other}; all inputs must show the same field"
                )


def _input_map(package: "Package", tensor: Tensor, image: xr.DataArray | None) -> InputMap:
    pad = tensor.spec.pad
    mode: PadMode = "reflect" if pad is None else pad.mode
    value = float(getattr(pad, "value", 0.0))
    if image is None:
        return InputMap(tensor.id, tensor.axes, False, {}, "float32", mode, value)
    sizes = {a: int(image.sizes.get(a, 1)) for a in tensor.axes if a != "batch"}
    return InputMap(tensor.id, tensor.axes, True, sizes, str(image.dtype), mode, value)


def _output_map(
    package: "Package",
    number: int,
    tensor: Tensor,
    maps: Sequence[AxisMap],
    images: Mapping[str, xr.DataArray],
) -> OutputMap:
    by_name = {m.name: m for m in maps}
    loops = [m for m in maps if m.role == "loop"]
    sizes: dict[str, int | None] = {}
    kept: dict[str, int | None] = {m.name: m.size for m in loops}
    for name, length in zip(tensor.axes, tensor.lengths, strict=True):
        if name == "batch":
            continue
        if any(m.name == name for m in loops):
            hint = "choose one with --channels" if name == "channel" else "give one of them"
            raise PlanError(
                f"{package.name} takes no {name} axis but its output {tensor.id} has one, and the image has "
                f"{by_name[name].size} positions along {name}; {hint}"
            )
        axis = by_name.get(name)
        port = None if axis is None or axis.network is None else axis.network.outputs[number]
        whole = math.ceil if tensor.rounds_up else int
        sizes[name] = length if port is None or axis is None else whole(axis.size * port.scale)
        if sizes[name] == 0:
            raise PlanError(
                f"{package.name}: {axis.size if axis else 0} voxels along {name} give no voxel of the output {tensor.id}"
            )
        # An axis that was added for the network goes again; a single channel stays if the image has channels.
        added = axis is not None and axis.network is not None and not axis.in_image
        single = name == "channel" and sizes[name] == 1 and not (axis is not None and axis.in_image)
        if not (added or single):
            kept[name] = sizes[name]
    order = tuple(a for a in AXES if a in kept)
    known = [kept[a] for a in order]
    shape = tuple(int(n) for n in known if n is not None) if None not in known else None
    return OutputMap(
        tensor.id,
        tensor.axes,
        tensor.dtype,
        sizes,
        order,
        shape,
        _channel_names(tensor, order, loops, images),
        tensor.labels,
    )


def _channel_names(
    tensor: Tensor, image_axes: Sequence[str], loops: Sequence[AxisMap], images: Mapping[str, xr.DataArray]
) -> tuple[str, ...] | None:
    if "channel" not in image_axes:
        return None
    if any(m.name == "channel" for m in loops):
        looped = [i for i in images.values() if "channel" in i.dims and "channel" in i.coords]
        return tuple(str(n) for n in looped[0].coords["channel"].values) if looped else None
    return tensor.channels
