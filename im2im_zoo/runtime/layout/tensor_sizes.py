"""Tensor sizes of an RDF: for each axis of the network one grid of sizes, and one `TensorAxis` per tensor.

bioimage.io spec 0.5: an axis has a fixed size, a parameterized size (`min + n * step`), a size that follows another axis
(`reference.size * reference.scale / scale + offset`), or a size that is known only after the network has run.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_zoo.core.errors import PlanError
from im2im_zoo.networks.tensor_axis import NetworkAxis, TensorAxis
from im2im_zoo.runtime.layout.tiling import Grid

if TYPE_CHECKING:
    from im2im_zoo.package import Package

# Other names of space axes.
_SPACE = {"width": "x", "w": "x", "height": "y", "h": "y", "depth": "z", "d": "z"}
# With a larger ratio, two sizes are considered unrelated.
_LARGEST_RATIO = 64


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a package.

    Attributes:
        id: of the tensor.
        axes: names in `AXES`, in the tensor's order.
        lengths: fixed sizes by axis; None where a size follows another axis or depends on the data.
        channels: names of the channels, if there is a channel axis.
        dtype: as the RDF declares it.
        labels: whether its values are numbers of objects or classes.
        spec: the RDF's description.
        rounds_up: whether its size is rounded up, as of maps on a coarser grid than their labels.
    """

    id: str
    axes: tuple[str, ...]
    lengths: tuple[int | None, ...]
    channels: tuple[str, ...] | None
    dtype: str
    labels: bool
    spec: Any
    rounds_up: bool = False

    def axis(self, name: str) -> Any:
        """Return the RDF's description of an axis."""
        return self.spec.axes[self.axes.index(name)]

    def name_of(self, axis_id: object) -> str | None:
        """Return the name in `AXES` of an axis by its id in the RDF; None if there is none."""
        ids = [str(a.id) for a in self.spec.axes]
        return self.axes[ids.index(str(axis_id))] if str(axis_id) in ids else None


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The tensors of a package."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def find(self, tensor_id: object) -> Tensor | None:
        """Return a tensor by its id; None if there is none."""
        return next((t for t in (*self.inputs, *self.outputs) if t.id == str(tensor_id)), None)


@dataclass(frozen=True, slots=True)
class SizedAxis:
    """One axis of the network and its sizes.

    Attributes:
        network: the axis in all tensors.
        grid: sizes that all inputs take, in voxels of the reference.
        reference: id of the input whose size does not follow another tensor's.
        cut: whether all outputs follow it, so that it can be cut into tiles.
        uncut_by: id of an output that does not follow it, if it cannot be cut.
        crop: voxels without output at each end.
        declared_halo: largest halo that an output declares, in voxels, rounded up; None if there is none.
    """

    network: NetworkAxis
    grid: Grid
    reference: str
    cut: bool
    uncut_by: str
    crop: int
    declared_halo: int | None


def tensors_of(package: "Package") -> Tensors:
    """Return the tensors of a package, with axes named as in `AXES`.

    Raises:
        PlanError: an axis that is not in `AXES`, or occurs twice.
    """
    return Tensors(
        tuple(_tensor(package, t) for t in package.inputs),
        tuple(_tensor(package, t) for t in package.outputs),
    )


def network_axes(package: "Package", tensors: Tensors, given: Collection[str]) -> dict[str, SizedAxis]:
    """Return all axes of the inputs except batch and channel, by name.

    Args:
        package: the model.
        tensors: of the package.
        given: ids of the inputs that have an image.

    Raises:
        PlanError: sizes that contradict each other, or follow an input without an image.
    """
    present = [t for t in tensors.inputs if t.id in given]
    names = dict.fromkeys(a for t in present for a in t.axes if a not in ("batch", "channel"))
    return {name: _sized(package, name, tensors, present) for name in names}


def _tensor(package: "Package", spec: Any) -> Tensor:
    names = tuple(_name(package, spec, a) for a in spec.axes)
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        raise PlanError(
            f"{package.name}: the tensor {spec.id} has two axes of type {doubled[0]}; such models are not supported"
        )
    lengths = tuple(a.size if isinstance(a.size, int) else None for a in spec.axes)
    channel = next((a for a in spec.axes if a.type == "channel"), None)
    channels = None if channel is None else tuple(str(n) for n in channel.channel_names)
    dtype = str(np.dtype(str(spec.dtype)))
    named = hasattr(spec.data, "values") if not isinstance(spec.data, Sequence) else False
    labels = np.dtype(dtype).kind in "iu" and (named or np.dtype(dtype).itemsize >= 4)
    coarse = (
        package.grouping is not None
        and package.grouping.output == str(spec.id)
        and bool(package.grouping.scale)
    )
    return Tensor(str(spec.id), names, lengths, channels, dtype, labels, spec, coarse)


def _name(package: "Package", tensor: Any, axis: Any) -> str:
    if axis.type != "space":
        return str(axis.type)
    name = _SPACE.get(str(axis.id), str(axis.id))
    if name not in ("z", "y", "x"):
        raise PlanError(
            f"{package.name}: the tensor {tensor.id} has a space axis {name!r}; only models with z, y and x are supported"
        )
    return name


def _sized(package: "Package", name: str, tensors: Tensors, present: Sequence[Tensor]) -> SizedAxis:
    having = [t for t in present if name in t.axes]
    root = next((t for t in having if not hasattr(t.axis(name).size, "axis_id")), None)
    if root is None:
        raise PlanError(
            f"{package.name}: the size along {name} follows {_reference_text(having[0].axis(name))}, which has no size of "
            "its own; such models are not supported"
        )
    ports = {t.id: _input_port(package, name, t, root, tensors) for t in having}
    grid = _own_grid(root.axis(name))
    for other in having:
        if other is not root and not hasattr(other.axis(name).size, "axis_id"):
            grid = _common(package, name, grid, _own_grid(other.axis(name)), ports[other.id].scale, other.id)
    outputs = [_output_port(package, name, t, ports, tensors, grid) for t in tensors.outputs]
    missing = [t.id for t, port in zip(tensors.outputs, outputs, strict=True) if port is None]
    uncut = [t.id for t in tensors.outputs if _size_depends_on_data(t)] + missing
    scales = [p.scale for p in (*ports.values(), *outputs) if p is not None]
    unit = math.lcm(*(s.denominator for s in scales))
    grid = _divisible(package, name, grid, unit)
    network = NetworkAxis(
        name,
        grid.minimum,
        grid.step,
        grid.fixed,
        tuple(ports.get(t.id) for t in tensors.inputs),
        tuple(outputs),
    )
    crop = max((_cropped(p) for p in outputs if p is not None), default=0)
    halos = [_halo(t.axis(name), p) for t, p in zip(tensors.outputs, outputs, strict=True) if p is not None]
    declared = max((h for h in halos if h is not None), default=None)
    return SizedAxis(
        network, grid, root.id, not uncut, uncut[0] if uncut else "", -(-crop // unit) * unit, declared
    )


def _own_grid(axis: Any) -> Grid:
    if isinstance(axis.size, int):
        return Grid.of_fixed_size(axis.size)
    return Grid(int(axis.size.min), int(axis.size.step))


def _input_port(package: "Package", name: str, tensor: Tensor, root: Tensor, tensors: Tensors) -> TensorAxis:
    axis, dim = tensor.axis(name), tensor.axes.index(name)
    if tensor is root:
        return TensorAxis(dim)
    if not hasattr(axis.size, "axis_id"):
        sizes = axis.size, root.axis(name).size
        if isinstance(sizes[0], int) and isinstance(sizes[1], int):
            return TensorAxis(dim, Fraction(sizes[0], sizes[1]))
        return TensorAxis(
            dim, _ratio(package, f"the input {tensor.id}'s size along {name}", root.axis(name), axis)
        )
    found = tensors.find(axis.size.tensor_id)
    if found is not root or found.name_of(axis.size.axis_id) != name:
        raise PlanError(
            f"{package.name}: the size of {tensor.id} along {name} follows {_reference_text(axis)}; only models whose "
            f"inputs follow the {name} axis of one input are supported"
        )
    where = f"the input {tensor.id}'s size along {name}"
    return TensorAxis(dim, _ratio(package, where, root.axis(name), axis), int(axis.size.offset))


def _output_port(
    package: "Package",
    name: str,
    tensor: Tensor,
    ports: Mapping[str, TensorAxis],
    tensors: Tensors,
    grid: Grid,
) -> TensorAxis | None:
    """Return the axis in an output tensor; None if the output lacks it or its size does not follow the input's."""
    if name not in tensor.axes:
        return None
    axis, dim = tensor.axis(name), tensor.axes.index(name)
    if isinstance(axis.size, int):
        ratio = Fraction(axis.size, grid.minimum)
        simple = max(ratio.numerator, ratio.denominator) <= _LARGEST_RATIO and 1 in (
            ratio.numerator,
            ratio.denominator,
        )
        return TensorAxis(dim, ratio) if grid.fixed and simple else None
    if not hasattr(axis.size, "axis_id"):
        return None
    where = f"the output {tensor.id}'s size along {name}"
    reference = tensors.find(axis.size.tensor_id)
    if reference is None or reference.name_of(axis.size.axis_id) != name:
        raise PlanError(
            f"{package.name}: {where} follows {_reference_text(axis)}, not an axis {name}; such models are not supported"
        )
    if reference is tensor:
        raise PlanError(
            f"{package.name}: {where} follows itself; the package is invalid; please report this to its authors"
        )
    base = ports.get(reference.id)
    if base is None and reference in tensors.outputs:
        base = _output_port(package, name, reference, ports, tensors, grid)
    if base is None:
        raise PlanError(
            f"{package.name}: {where} follows the input {reference.id}, which has no image; add one with "
            f"--input {reference.id}=PATH"
        )
    ratio = _ratio(package, where, reference.axis(name), axis)
    offset = base.offset * ratio + int(axis.size.offset)
    return TensorAxis(dim, base.scale * ratio, math.floor(offset))


def _ratio(package: "Package", where: str, reference: Any, axis: Any) -> Fraction:
    """Return the voxels of an axis per voxel of the axis that it follows."""
    ratio = Fraction(reference.scale / axis.scale).limit_denominator(_LARGEST_RATIO)
    if ratio == 0 or abs(float(ratio) * axis.scale / reference.scale - 1) > 1e-6:
        raise PlanError(
            f"{package.name}: {where} is {reference.scale / axis.scale} times its reference's, which is not a simple "
            "fraction; such models are not supported"
        )
    return ratio


def _common(package: "Package", name: str, first: Grid, second: Grid, scale: Fraction, other: str) -> Grid:
    """Return the sizes of the first grid that, times `scale`, are sizes of the second."""
    step = math.lcm(first.step, math.lcm(second.step, scale.numerator) // scale.numerator * scale.denominator)
    found: list[int] = []
    size = first.minimum
    while len(found) < 2 and size <= max(first.minimum, second.minimum * scale.denominator) + 2 * step:
        scaled = size * scale
        if (
            scaled.denominator == 1
            and int(scaled) in second
            and (not second.fixed or scaled == second.minimum)
        ):
            found.append(size)
        if first.fixed:
            break
        size += first.step
    if not found:
        raise PlanError(
            f"{package.name}: no size along {name} is valid for all inputs: {first.minimum} + n * {first.step}, and for {other} "
            f"{second.minimum} + n * {second.step} at a scale of {scale}; the package is invalid; please report this to its authors"
        )
    if first.fixed or second.fixed or len(found) == 1:
        return Grid(found[0], Grid.of_fixed_size(found[0]).step, fixed=True)
    return Grid(found[0], found[1] - found[0])


def _divisible(package: "Package", name: str, grid: Grid, unit: int) -> Grid:
    """Return the sizes of a grid that are multiples of `unit`, so that every tensor has whole voxels.

    If there are none (such as 10 + n * 4, of a convolution without padding before one of stride 4), return the sizes that
    differ by multiples of `unit`, so that all tiles have one phase; tensor sizes are then rounded down.
    """
    if grid.fixed:
        if grid.minimum % unit:
            raise PlanError(
                f"{package.name}: its size along {name}, {grid.minimum}, is not a multiple of {unit}, as the sizes of its other "
                "tensors require; the package is invalid; please report this to its authors"
            )
        return grid
    sizes = range(grid.minimum, grid.minimum + unit * grid.step, grid.step)
    first = next((n for n in sizes if n % unit == 0), grid.minimum)
    return Grid(first, math.lcm(grid.step, unit))


def _cropped(port: TensorAxis) -> int:
    """Return the voxels of the reference that the output lacks at its ends, the larger of both."""
    near, far = port.shift, -port.offset - port.shift
    return max(0, *(-(-n * port.scale.denominator // port.scale.numerator) for n in (near, far)))


def _halo(axis: Any, port: TensorAxis) -> int | None:
    halo = getattr(axis, "halo", None)
    return None if halo is None else -(-int(halo) * port.scale.denominator // port.scale.numerator)


def _size_depends_on_data(tensor: Tensor) -> bool:
    kinds = [a for a in tensor.spec.axes if a.type not in ("batch", "channel")]
    return any(not isinstance(a.size, int) and not hasattr(a.size, "axis_id") for a in kinds)


def _reference_text(axis: Any) -> str:
    return f"{axis.size.tensor_id}.{axis.size.axis_id}"
