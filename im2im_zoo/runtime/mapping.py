"""Which axis of an image is which axis of a model's tensors, by name. Sizes and names only: no voxel is read.

Each axis has one role:

    tile     an axis of the network (z, y, x; time if the model has one): cut into tiles where needed
    channel  taken whole
    batch    the tensor's batch: one tile at a time
    loop     an axis of the image that the model does not have: the model runs at each of its positions,
             each of which is a sample of its own (its statistics are its own)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from im2im_zoo.axes import AXES
from im2im_zoo.errors import PlanError
from im2im_zoo.runtime.tiling import Grid

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Role = Literal["tile", "channel", "batch", "loop"]


@dataclass(frozen=True, slots=True)
class AxisMap:
    """One axis of the image, of the model, or of both.

    Attributes:
        size: voxels in the image; 1 if the image does not have the axis.
        out_size: voxels in the output.
        grid: the sizes that the network takes, for a `tile` axis.
        scale: voxels of the output for one of the input.
        declared_halo: voxels of the input, rounded up; None if the RDF gives none.
        in_image, in_output: whether the input and the output image have the axis.
        note: what was done and why, for a person.
    """

    name: str
    role: Role
    size: int
    out_size: int
    note: str
    grid: Grid | None = None
    scale: Fraction = Fraction(1)
    declared_halo: int | None = None
    in_image: bool = True
    in_output: bool = True


def map_axes(package: "Package", image: xr.DataArray) -> tuple[AxisMap, ...]:
    """The axes: those looped over in the image's order, then those of the input tensor, then an added channel.

    Raises:
        PlanError: several inputs or outputs, or an image or a size that the model does not take.
    """
    source, target = _the_one(package, "inputs"), _the_one(package, "outputs")
    sizes = {str(a): int(n) for a, n in image.sizes.items()}
    _check_names(package, image, source, target)
    outputs = {str(a.id): a for a in target.axes}
    inputs = {str(a.id): a for a in source.axes}
    result = [
        AxisMap(a, "loop", n, n, f"the model has no {a} axis: it runs at each of the {n}")
        for a, n in sizes.items()
        if a not in inputs or a == "batch"
    ]
    for name, axis in inputs.items():
        if axis.type == "batch":
            result.append(_batch(name in sizes))
        elif axis.type == "channel":
            result.append(_channel(package, image, axis, outputs.get(name)))
        else:
            result.append(_tiled(package, sizes.get(name), source, axis, outputs.get(name)))
    extra = [a for a in outputs if a not in inputs]
    for name in extra:
        result.append(_added_by_output(package, name, outputs[name], sizes))
    return tuple(result)


def channel_names(axis: Any) -> tuple[str, ...]:
    """The names of the channels of a spec `ChannelAxis`."""
    return tuple(str(n) for n in axis.channel_names)


def output_axes(maps: Sequence[AxisMap]) -> tuple[str, ...]:
    """The axes of the output image, in the order of `AXES`."""
    kept = {m.name for m in maps if m.in_output}
    return tuple(a for a in AXES if a in kept)


def _the_one(package: "Package", which: str) -> Any:
    tensors = getattr(package, which)
    if len(tensors) != 1:
        names = ", ".join(str(t.id) for t in tensors)
        raise PlanError(
            f"{package.name} has {len(tensors)} {which} ({names}); models of one input and one output can be run"
        )
    return tensors[0]


def _check_names(package: "Package", image: xr.DataArray, source: Any, target: Any) -> None:
    given = [str(a) for a in image.dims]
    for what, axes in (("the image", given), ("the input", source.axes), ("the output", target.axes)):
        names = [str(getattr(a, "id", a)) for a in axes]
        unknown = [n for n in names if n not in AXES]
        if unknown:
            raise PlanError(
                f"{package.name}: {what} has axes {', '.join(names)}; {', '.join(unknown)} is none of {', '.join(AXES)}"
            )
    if 0 in image.shape:
        raise PlanError(f"the image has no voxels: {_shape_text(image.sizes)}")


def _batch(in_image: bool) -> AxisMap:
    note = "one sample at a time" + (": the image's batch is looped over" if in_image else "")
    return AxisMap("batch", "batch", 1, 1, note, in_image=False, in_output=False)


def _channel(package: "Package", image: xr.DataArray, axis: Any, output: Any) -> AxisMap:
    wanted = channel_names(axis)
    out_count = 1 if output is None else len(channel_names(output))
    if "channel" not in image.dims:
        if len(wanted) != 1:
            raise PlanError(
                f"{package.name} takes {len(wanted)} channels ({', '.join(wanted)}), but the image has no channel axis; "
                "if one of its axes holds the channels, say so with --axes"
            )
        note = f"the image has none: it is taken for {wanted[0]!r}"
        return AxisMap("channel", "channel", 1, out_count, note, in_image=False, in_output=out_count > 1)
    count = image.sizes["channel"]
    names = [str(n) for n in image.coords["channel"].values] if "channel" in image.coords else []
    if count != len(wanted):
        listed = f" ({', '.join(names)})" if names else ""
        raise PlanError(
            f"{package.name} takes {len(wanted)} channel{'s' * (len(wanted) > 1)} ({', '.join(wanted)}), but the image "
            f"has {count}{listed}; choose with --channels, in the model's order"
        )
    pairs = ", ".join(f"{a} as {b!r}" for a, b in zip(names or range(count), wanted, strict=True))
    return AxisMap("channel", "channel", count, out_count, pairs, in_output=output is not None)


def _tiled(package: "Package", size: int | None, source: Any, axis: Any, output: Any) -> AxisMap:
    name = str(axis.id)
    grid = _grid(package, axis)
    # One plane is no volume and one frame no movie; a narrow image is still one, and is mirrored.
    if (size is None or (size == 1 and name not in ("y", "x"))) and grid.at_least(1) != 1:
        has = "no" if size is None else "one plane along"
        raise PlanError(
            f"{package.name} needs at least {grid.minimum} voxels along {name}, but the image has {has} {name}: "
            f"use a model for images without {name}, or say with --axes which axis is {name}"
        )
    if output is None:
        raise PlanError(
            f"{package.name}: its output has no {name} axis but its input has; such models cannot be run"
        )
    scale = _scale(package, source, axis, output)
    if grid.step % scale.denominator or grid.minimum % scale.denominator:
        raise PlanError(
            f"{package.name}: the output's size along {name} is {scale} of the input's, which its sizes "
            f"{grid.minimum} + n * {grid.step} do not divide into"
        )
    halo = getattr(output, "halo", None)
    declared = None if halo is None else -(-int(halo) * scale.denominator // scale.numerator)
    count = size or 1
    takes = f"{grid.minimum} only" if grid.fixed else f"{grid.minimum} + n * {grid.step}"
    note = f"the network takes {takes}" + ("" if size else "; the image has none: one plane is added")
    out_size = int(count * scale)
    if out_size < 1:
        raise PlanError(f"{package.name}: {count} voxels along {name} give no voxel of output")
    return AxisMap(
        name, "tile", count, out_size, note, grid, scale, declared, size is not None, size is not None
    )


def _grid(package: "Package", axis: Any) -> Grid:
    if isinstance(axis.size, int):
        return Grid.of_fixed_size(axis.size)
    if hasattr(axis.size, "step"):
        return Grid(int(axis.size.min), int(axis.size.step))
    raise PlanError(
        f"{package.name}: the input's size along {axis.id} is given by another axis ({axis.size.axis_id}); "
        "models whose input axes are sized on their own can be run"
    )


def _scale(package: "Package", source: Any, axis: Any, output: Any) -> Fraction:
    where = f"{package.name}: the output's size along {axis.id}"
    if isinstance(output.size, int):
        if not isinstance(axis.size, int):
            raise PlanError(
                f"{where} is fixed ({output.size}) but the input's is not; such models cannot be run"
            )
        return Fraction(output.size, axis.size)
    reference = getattr(output.size, "axis_id", None)
    if reference is None:
        raise PlanError(f"{where} depends on the data; such models cannot be run")
    if str(output.size.tensor_id) != str(source.id) or str(reference) != str(axis.id):
        raise PlanError(f"{where} follows {output.size.tensor_id}.{reference}, not the input's {axis.id}")
    if output.size.offset:
        raise PlanError(
            f"{where} differs by {output.size.offset} from the input's; networks that crop their output cannot be run"
        )
    ratio = Fraction(axis.scale / output.scale).limit_denominator(64)
    if abs(float(ratio) * output.scale / axis.scale - 1) > 1e-6:
        raise PlanError(f"{where} is {axis.scale / output.scale} of the input's, which is no simple fraction")
    return ratio


def _added_by_output(package: "Package", name: str, axis: Any, sizes: Mapping[str, int]) -> AxisMap:
    if axis.type == "batch":
        return _batch(False)
    if axis.type != "channel":
        raise PlanError(
            f"{package.name}: its output has an axis {name} that its input has not; such models cannot be run"
        )
    if name in sizes:
        raise PlanError(
            f"{package.name} takes no channel axis but gives one, and the image has {sizes[name]} channels; "
            "choose one with --channels"
        )
    count = len(channel_names(axis))
    return AxisMap("channel", "channel", 1, count, "given by the model", in_image=False, in_output=count > 1)


def _shape_text(sizes: Mapping[Any, int]) -> str:
    return ", ".join(f"{a} {n}" for a, n in sizes.items())
