"""What an RDF says of the sizes of its tensors, made into one grid and one `TensorAxis` a tensor for each axis. No images here.

bioimage.io spec 0.5: an axis has a fixed size, a parameterized one (`min + n * step`), one that follows another axis
(`reference.size * reference.scale / scale + offset`), or one that is known only after the network has run.
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

# What authors call space axes, beside z, y, x.
_SPACE = {"width": "x", "w": "x", "height": "y", "h": "y", "depth": "z", "d": "z"}
# Larger ratios of sizes are no scale that a network keeps, but sizes that have nothing to do with each other.
_LARGEST_RATIO = 64


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """One tensor of a package: its axes by their names in `AXES`, and what each is in the RDF.

    `lengths`: sizes that do not follow an axis, one an axis; None where they do, or depend on the data. `rounds_up`: whether
    a last voxel that is not whole counts, as in maps on a coarser grid of which labels are made.
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
        """The spec's description of an axis."""
        return self.spec.axes[self.axes.index(name)]

    def name_of(self, axis_id: object) -> str | None:
        """The name of an axis by the id that the RDF gives it."""
        ids = [str(a.id) for a in self.spec.axes]
        return self.axes[ids.index(str(axis_id))] if str(axis_id) in ids else None


@dataclass(frozen=True, slots=True, eq=False)
class Tensors:
    """The tensors of a package."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    def find(self, tensor_id: object) -> Tensor | None:
        """A tensor by its id."""
        return next((t for t in (*self.inputs, *self.outputs) if t.id == str(tensor_id)), None)


@dataclass(frozen=True, slots=True)
class SizedAxis:
    """One axis of the network.

    Attributes:
        network: how the tensors have it.
        grid: sizes that all inputs take, in voxels of the reference.
        reference: id of the input whose size is not given by another one's.
        cut: whether all outputs follow it, so that the network may be run in tiles along it; otherwise `uncut_by` is the
            output that does not.
        crop: voxels without output at each end.
        declared_halo: the largest that an output declares, voxels rounded up.
    """

    network: NetworkAxis
    grid: Grid
    reference: str
    cut: bool
    uncut_by: str
    crop: int
    declared_halo: int | None


def tensors_of(package: "Package") -> Tensors:
    """The tensors of a package, their axes named as in `AXES`.

    Raises:
        PlanError: an axis that has no place among them.
    """
    return Tensors(
        tuple(_tensor(package, t) for t in package.inputs),
        tuple(_tensor(package, t) for t in package.outputs),
    )


def network_axes(package: "Package", tensors: Tensors, given: Collection[str]) -> dict[str, SizedAxis]:
    """All axes of the inputs but batch and channel, by name.

    Args:
        given: ids of the inputs that have an image.

    Raises:
        PlanError: sizes that contradict each other, or depend on what is not given.
    """
    present = [t for t in tensors.inputs if t.id in given]
    names = dict.fromkeys(a for t in present for a in t.axes if a not in ("batch", "channel"))
    return {name: _sized(package, name, tensors, present) for name in names}


def _tensor(package: "Package", spec: Any) -> Tensor:
    names = tuple(_name(package, spec, a) for a in spec.axes)
    doubled = sorted({n for n in names if names.count(n) > 1})
    if doubled:
        raise PlanError(
            f"{package.name}: the tensor {spec.id} has two axes of the kind {doubled[0]}; such models cannot be run"
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
            f"{package.name}: the tensor {tensor.id} has a space axis {name!r}, which is none of z, y, x; such models cannot be run"
        )
    return name


def _sized(package: "Package", name: str, tensors: Tensors, present: Sequence[Tensor]) -> SizedAxis:
    having = [t for t in present if name in t.axes]
    root = next((t for t in having if not hasattr(t.axis(name).size, "axis_id")), None)
    if root is None:
        raise PlanError(
            f"{package.name}: the size along {name} is given by {_reference_text(having[0].axis(name))}, which has no size of "
            "its own here; such models cannot be run"
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
            f"{package.name}: the size of {tensor.id} along {name} is given by {_reference_text(axis)}; models whose "
            f"inputs follow the {name} axis of one input can be run"
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
    """How an output has the axis; None if it has not, or its size does not follow the input's."""
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
            f"{package.name}: {where} follows {_reference_text(axis)}, not an axis {name}; such models cannot be run"
        )
    if reference is tensor:
        raise PlanError(f"{package.name}: {where} follows itself")
    base = ports.get(reference.id)
    if base is None and reference in tensors.outputs:
        base = _output_port(package, name, reference, ports, tensors, grid)
    if base is None:
        raise PlanError(
            f"{package.name}: {where} follows the input {reference.id}, for which no image is given; give one with "
            f"--input {reference.id}=PATH"
        )
    ratio = _ratio(package, where, reference.axis(name), axis)
    offset = base.offset * ratio + int(axis.size.offset)
    return TensorAxis(dim, base.scale * ratio, math.floor(offset))


def _ratio(package: "Package", where: str, reference: Any, axis: Any) -> Fraction:
    """Voxels of an axis for one of the axis that it follows."""
    ratio = Fraction(reference.scale / axis.scale).limit_denominator(_LARGEST_RATIO)
    if ratio == 0 or abs(float(ratio) * axis.scale / reference.scale - 1) > 1e-6:
        raise PlanError(
            f"{package.name}: {where} is {reference.scale / axis.scale} of its reference's, which is no simple fraction"
        )
    return ratio


def _common(package: "Package", name: str, first: Grid, second: Grid, scale: Fraction, other: str) -> Grid:
    """The sizes of the first grid that are, scaled, sizes of the second."""
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
            f"{package.name}: no size along {name} suits the input {other} and the others: {first.minimum} + n * {first.step}, and "
            f"{second.minimum} + n * {second.step} at a scale of {scale}; the package is not sound, tell its authors"
        )
    if first.fixed or second.fixed or len(found) == 1:
        return Grid(found[0], Grid.of_fixed_size(found[0]).step, fixed=True)
    return Grid(found[0], found[1] - found[0])


def _divisible(package: "Package", name: str, grid: Grid, unit: int) -> Grid:
    """Those sizes of a grid that are multiples of `unit`, so that every tensor has whole voxels.

    If there are none (a convolution without padding before one of stride 4 takes 10 + n * 4), the sizes from which a
    multiple of `unit` may be left out, so that all tiles have one phase: a tensor has as many whole voxels as there are.
    """
    if grid.fixed:
        if grid.minimum % unit:
            raise PlanError(
                f"{package.name}: its size along {name}, {grid.minimum}, cannot be divided by {unit}, as the sizes of its other "
                "tensors need; the package is not sound, tell its authors"
            )
        return grid
    sizes = range(grid.minimum, grid.minimum + unit * grid.step, grid.step)
    first = next((n for n in sizes if n % unit == 0), grid.minimum)
    return Grid(first, math.lcm(grid.step, unit))


def _cropped(port: TensorAxis) -> int:
    """Voxels of the reference at an end of it, the larger, that the output does not show."""
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
