"""Whether the halo that a package declares is what its network needs: measured by cutting the test tensors, and by probing.

Packages whose outputs follow one input, without a change of scale, are measured; of others nothing is said here.
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

# Seconds that probing may take along one axis: so many that a busy machine does not change what is found.
_BUDGET = 60.0
_LARGEST_STEP = 32
# Of the output's range: what `export` leaves between tiles and the whole, which nobody sees as a seam.
_SEAM = 1e-3
# What is needed depends a little on the image, and on where it is cut: so much above what is declared is but a remark.
_WORTH = 1.25


def check_halo(checks: Checks, engine: Engine, test: Reference) -> None:
    """Compare the declared halo with what the network needs on the test tensors, and with how far a cut is felt."""
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
    # Where the test tensors show nothing, a cut is felt as far as it is.
    wanted = enough if enough is not None else end
    if wanted is None:
        checks.note("halo", f"along {name} the test tensors are too small to show the halo that is needed")
    elif wanted > declared:
        basis = (
            "tiles of the test tensors agree with the whole of them, within a thousandth of its range,"
            if enough is not None
            else "the test tensors are too small to show less, and a cut is felt no further"
        )
        message = (
            f"the halo along {name} is {declared}, and {basis} from {wanted} voxels on: declare at least {wanted}, or "
            "programs that tile show seams"
        )
        shown = enough is not None and wanted > _WORTH * declared
        checks.add("warning" if shown else "info", "halo", where, message)
    else:
        felt = "as far as could be looked" if end is None else f"up to {end} voxels away"
        checks.note(
            "halo", f"along {name} {declared} voxels are declared, {wanted} are needed; a cut is felt {felt}"
        )
        if end is not None and declared > end:
            message = (
                f"the halo along {name} is {declared}, though a cut is felt no further than {end} voxels: declare {end}; more "
                "costs time and says nothing"
            )
            checks.add("info", "halo", where, message)


def _declared(package: Package, axis: NetworkAxis) -> int:
    ports = zip(package.outputs, axis.outputs, strict=True)
    return max(int(getattr(o.axes[p.dim], "halo", 0)) for o, p in ports if p is not None)


def _axes(package: Package) -> list[NetworkAxis] | None:
    """The axes along which the package may be cut; None if there are none, or outputs do not follow them simply."""
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
        # A network of one size does not say what it is pooled by: tiles are moved by what divides its size.
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
