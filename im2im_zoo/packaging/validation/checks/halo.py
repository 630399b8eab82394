"""Check of the declared halo against the required one, measured on cuts of the test tensors and by probing.

Only packages with one input, and outputs of the same scale, are measured.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.engines import Engine
from im2im_zoo.networks import Agreement, NetworkAxis, required_halo
from im2im_zoo.networks.receptive_field import Extent, ReceptiveField, measure_receptive_field
from im2im_zoo.networks.tensor_axis import TensorAxis
from im2im_zoo.package import Package
from im2im_zoo.package.reference import Reference, tolerance
from im2im_zoo.packaging.validation.checks.base import Checks, fits

# Seconds that probing may take along one axis; enough that a busy machine does not change the result.
_BUDGET = 60.0
_LARGEST_STEP = 32
# Share of the output's range that `export` allows between tiles and the whole image; it is not visible as a seam.
_SEAM = 1e-3
# The required halo depends a little on the image and the cut: below this ratio to the declared one it is only a remark.
_WORTH = 1.25


def check_halo(checks: Checks, engine: Engine, test: Reference) -> None:
    """Compare the declared halo with the required halo on the test tensors, and with the receptive field."""
    axes = _axes(checks.package)
    inputs = test.inputs
    if axes is None or len(inputs) != 1 or inputs[0] is None:
        return
    least = list(inputs[0].shape)
    for axis in axes:
        least[axis.inputs[0].dim] = axis.minimum  # type: ignore[union-attr]
    if not fits(least):
        return

    def run(arrays: Sequence[NDArray[Any] | None]) -> list[NDArray[Any]]:
        return engine(arrays)

    allowed = [tolerance(checks.package, engine.weights_format, str(o.id)) for o in checks.package.outputs]
    try:
        ranges = [float(np.ptp(output)) for output in engine(inputs)]
        agree = [
            Agreement(t.relative, max(t.absolute, _SEAM * r), t.mismatched_per_million)
            for t, r in zip(allowed, ranges, strict=True)
        ]
        needed = required_halo(run, axes, list(inputs), agree)
        reaches = {
            a.name: measure_receptive_field(run, axes, list(inputs), a.name, budget=_BUDGET) for a in axes
        }
    except (Im2ImError, MemoryError) as error:
        checks.note("halo", f"it could not be measured: {' '.join(str(error).split())[:300]}")
        return
    for i, axis in enumerate(axes):
        enough = needed.voxels[i] if needed.sufficient[i] else None
        _compare(checks, axis, _declared(checks.package, axis), enough, reaches[axis.name])


def _compare(
    checks: Checks, axis: NetworkAxis, declared: int, enough: int | None, far: ReceptiveField
) -> None:
    name = axis.name
    end = far.voxels if far.extent is Extent.EXACT else None
    checks.measured.setdefault("halo", {})[name] = {"declared": declared, "needed": enough, "reach": end}
    where = f"outputs[0].axes[{axis.outputs[0].dim}].halo"  # type: ignore[union-attr]
    if far.extent is Extent.GLOBAL:
        checks.note(
            "halo",
            f"along {name} the network depends on the whole image: no halo makes tiles exact ({far.note})",
        )
        if enough is None or enough <= declared:
            return
    # Where the test tensors show no required halo, the receptive field is used. Only multiples of the step are right in programs
    # that pad an image by it.
    step = 1 if axis.fixed else axis.step
    enough, end = _rounded_up(enough, step), _rounded_up(end, step)
    wanted = enough if enough is not None else end
    if wanted is None:
        checks.note("halo", f"along {name} the test tensors are too small to show the halo that is needed")
    elif wanted > declared:
        basis = "measured on the test tensors" if enough is not None else "the receptive field of the network"
        message = (
            f"the halo along {name} is {declared}: declare {wanted}, or programs that cut images into tiles show seams "
            f"({basis})"
        )
        shown = enough is not None and wanted > _WORTH * declared
        checks.add("warning" if shown else "info", "halo", where, message)
    else:
        reach = "at least as large as the test tensors" if end is None else f"{end} voxels at each end"
        checks.note(
            "halo",
            f"along {name} {declared} voxels are declared, {wanted} are needed; the receptive field is {reach}",
        )
        if end is not None and declared > end:
            message = (
                f"the halo along {name} is {declared}, though the receptive field is {end} voxels at each end: declare {end}; more "
                "costs time and changes nothing"
            )
            checks.add("info", "halo", where, message)


def _rounded_up(voxels: int | None, step: int) -> int | None:
    return None if voxels is None else -(-voxels // step) * step


def _declared(package: Package, axis: NetworkAxis) -> int:
    ports = zip(package.outputs, axis.outputs, strict=True)
    return max(int(getattr(o.axes[p.dim], "halo", 0)) for o, p in ports if p is not None)


def _axes(package: Package) -> list[NetworkAxis] | None:
    """Return the axes along which the package may be cut; None if there are none, or an output has another scale along them."""
    from bioimageio.spec.model import v0_5 as spec

    if len(package.inputs) != 1:
        return None
    (tensor,), found = package.inputs, []
    for dim, axis in enumerate(tensor.axes):
        if axis.type not in ("space", "time"):
            continue
        size = axis.size
        if not isinstance(size, int | spec.ParameterizedSize):
            return None
        outputs = [_port(output, tensor, axis) for output in package.outputs]
        if any(port is None for port in outputs):
            return None
        fixed = isinstance(size, int)
        # The pooling of a network of one size is unknown: tiles are moved by a divisor of its size.
        least, step = (size, _fixed_step(size)) if isinstance(size, int) else (size.min, size.step)
        found.append(NetworkAxis(str(axis.id), least, step, fixed, (TensorAxis(dim),), tuple(outputs)))
    return found or None


def _fixed_step(size: int) -> int:
    return min(size & -size, _LARGEST_STEP)


def _port(output: Any, tensor: Any, axis: Any) -> TensorAxis | None:
    for dim, other in enumerate(output.axes):
        size = getattr(other, "size", None)
        same = str(getattr(size, "tensor_id", "")) == str(tensor.id) and str(
            getattr(size, "axis_id", "")
        ) == str(axis.id)
        if same and other.scale == axis.scale:
            return TensorAxis(dim, offset=int(size.offset))  # type: ignore[union-attr]
    return None
