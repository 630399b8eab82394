"""Map the axes of images to the axes of a model's tensors, by name, without reading voxels.

`image_layout` describes the result and the roles of axes; `tensor_sizes` reads the axes of tensors from the RDF.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import xarray as xr

from im2im_zoo.core.axes import AXES
from im2im_zoo.core.errors import PlanError
from im2im_zoo.images.colours import is_colour
from im2im_zoo.runtime.layout.image_layout import AxisMap, InputMap, Layout, OutputMap, PadMode, Role
from im2im_zoo.runtime.layout.tensor_sizes import SizedAxis, Tensor, network_axes, tensors_of

if TYPE_CHECKING:
    from im2im_zoo.package import Package


def images_by_input(
    package: "Package", images: xr.DataArray | Mapping[str, xr.DataArray]
) -> dict[str, xr.DataArray]:
    """Return the image of each input tensor by its id; a single image is that of the main input.

    Raises:
        PlanError: an unknown id, or a required input without an image.
    """
    if isinstance(images, xr.DataArray):
        images = {main_input(package): images}
    known = [str(t.id) for t in package.inputs]
    unknown = sorted(set(images) - set(known))
    if unknown:
        raise PlanError(f"{package.name} has no input {', '.join(unknown)}; choose from {', '.join(known)}")
    missing = [str(t.id) for t in package.inputs if not t.optional and str(t.id) not in images]
    if missing:
        have = f"only {', '.join(images)} is given" if images else "none is given"
        raise PlanError(
            f"{package.name} has the inputs {', '.join(known)}, but {have}; add the image of {missing[0]} with "
            f"--input {missing[0]}=PATH"
        )
    return {name: images[name] for name in known if name in images}


def main_input(package: "Package") -> str:
    """Return the id of the main input: the first that is not optional."""
    return str(next((t for t in package.inputs if not t.optional), package.inputs[0]).id)


def map_axes(package: "Package", images: xr.DataArray | Mapping[str, xr.DataArray]) -> Layout:
    """Map the axes of images to a model.

    Args:
        package: the model.
        images: by input tensor; or the image of the main one.

    Returns:
        The layout: looped axes in the images' order, then those of the input tensors in their order.

    Raises:
        PlanError: images or sizes that the model does not take.
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
        AxisMap(a, "loop", n, f"the model has no {a} axis: it runs at each of the {n} positions")
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
            f"{package.name}: the image of {tensor.id} has the axes {', '.join(names)}; {', '.join(unknown)} is unknown: "
            f"use {', '.join(AXES)}"
        )
    if 0 in image.shape:
        shape = ", ".join(f"{a} {n}" for a, n in image.sizes.items())
        raise PlanError(
            f"{package.name}: the image of {tensor.id} has no voxels ({shape}); use another image"
        )


def _loops(
    package: "Package", present: Sequence[Tensor], images: Mapping[str, xr.DataArray]
) -> dict[str, int]:
    """Return the looped axes with their sizes: axes of the images that their tensors lack, in the images' order."""
    taken = {a for t in present for a in t.axes} - {"batch"}
    loops: dict[str, int] = {}
    for tensor in present:
        for axis, size in images[tensor.id].sizes.items():
            name = str(axis)
            if name in tensor.axes and name != "batch":
                continue
            if name in taken:
                raise PlanError(
                    f"{package.name}: the image of {tensor.id} has an axis {name}, which the model has for another input but "
                    f"not for this one; use one {name} position of it, or correct its axes with --axes"
                )
            if loops.setdefault(name, int(size)) != int(size):
                raise PlanError(
                    f"{package.name}: the image of {tensor.id} has {size} positions along {name}, another input's image "
                    f"{loops[name]}; they must be equal"
                )
    return loops


def _batch_note(loops: Mapping[str, int]) -> str:
    return "one sample at a time" + (", looping over the image's batch" if "batch" in loops else "")


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
                "if one of its axes holds the channels, name it with --axes; if they are in separate files, add those with --join"
            )
        return f"the image has none: it is used as {wanted[0]!r}"
    count = image.sizes["channel"]
    names = [str(n) for n in image.coords["channel"].values] if "channel" in image.coords else []
    if count != len(wanted):
        listed = f" ({', '.join(names)})" if names else ""
        many, few = (
            "select them with --channels, in the model's order, by name or by number counted from 0",
            "add the files of the others with --join",
        )
        if len(wanted) == 1 and is_colour(image):
            many = "convert it with --channels grey, or select one with --channels red, green or blue"
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
    takes = f"only {grid.minimum}" if grid.fixed else f"{grid.minimum} + n * {grid.step}"
    # A single plane or frame is not padded to a volume or movie; a narrow image is mirrored.
    if (size is None or (size == 1 and name not in ("y", "x"))) and grid.at_least(1) != 1:
        has = f"no {name} axis" if size is None else f"only one plane along {name}"
        raise PlanError(
            f"{package.name} needs at least {grid.minimum} voxels along {name}, but the image has {has}; "
            f"use a model for images without {name}, or name the axis that is {name} with --axes"
        )
    count = int(size or 1)
    role: Role = "index" if name == "index" else "tile" if axis.cut else "whole"
    if role == "index" and (count not in grid or (grid.fixed and count != grid.minimum)):
        raise PlanError(
            f"{package.name} takes {takes} voxels along {name}, but the image has {count}; use an image of such a size"
        )
    if role == "whole" and grid.fixed and count + 2 * axis.crop > grid.minimum:
        raise PlanError(
            f"{package.name} takes only {grid.minimum} voxels along {name} and cannot be run in tiles along it, as the output "
            f"{axis.uncut_by} does not follow it, but the image has {count}; crop it, or resample it with --rescale"
        )
    note = f"the network takes {takes}" + ("" if size else "; the image has none: one plane is added")
    if role == "whole":
        note += f"; it is not cut, as the output {axis.uncut_by} does not follow it"
    if axis.crop:
        note += f"; it crops {axis.crop} at each end, where the image is mirrored"
    return AxisMap(
        name, role, count, note, grid, axis.network, axis.crop, axis.declared_halo, size is not None
    )


def _check_sizes(
    package: "Package",
    present: Sequence[Tensor],
    images: Mapping[str, xr.DataArray],
    maps: Mapping[str, AxisMap],
) -> None:
    """Check that the sizes of all images agree.

    Raises:
        PlanError: an image does not have the size of the same field of view.
    """
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
                    f"{package.name}: the image of {tensor.id} has {have} voxels along {name}, but needs {int(exact)} to match "
                    f"the {axis.size} of {other}; all inputs must show the same field of view"
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
            hint = "select one with --channels" if name == "channel" else "use one of them"
            raise PlanError(
                f"{package.name} has no {name} axis in its inputs but one in its output {tensor.id}, and the image has "
                f"{by_name[name].size} positions along {name}; {hint}"
            )
        axis = by_name.get(name)
        port = None if axis is None or axis.network is None else axis.network.outputs[number]
        whole = math.ceil if tensor.rounds_up else int
        sizes[name] = length if port is None or axis is None else whole(axis.size * port.scale)
        if sizes[name] == 0:
            raise PlanError(
                f"{package.name}: {axis.size if axis else 0} voxels along {name} give no voxel of the output {tensor.id}; "
                "use a larger image"
            )
        # Remove axes that were added for the network; keep a single channel if the image has channels.
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
