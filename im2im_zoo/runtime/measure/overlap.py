"""Measure the halo of a package's tiles, on its test tensors and by probing.

By default, the halo is the smallest with which tiles of the test tensors agree with the whole within the package's own
tolerance, and at least the declared one. It is often much smaller than the receptive field, which is used only if the test
tensors are too small to measure. Raw outputs are compared, before postprocessing, which may need the whole output.

Measuring takes seconds, so results are kept in the user's cache, by weights, engine and test tensors.
"""

import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.atomic import cache_json
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256, sha256_of_parts
from im2im_zoo.core.nested import our_entry
from im2im_zoo.engines import Engine, library_version
from im2im_zoo.networks import Agreement, NetworkAxis, RequiredHalo, required_halo
from im2im_zoo.networks.receptive_field import Extent, ReceptiveField, measure_receptive_field
from im2im_zoo.runtime.measure.cache import cache_file

if TYPE_CHECKING:
    from im2im_zoo.package import Package

_LOG = logging.getLogger(__name__)
# Increased when the result of a measurement changes.
_VERSION = 1
# Seconds per axis, and with `exact`.
_BUDGET, _EXACT_BUDGET = 15.0, 60.0

Tensors = Sequence[NDArray[Any] | None]


@dataclass(frozen=True, slots=True)
class ReferenceTensors:
    """Data for the measurement: a preprocessed array per input of the package, and a tolerance per output."""

    inputs: Tensors
    agree: Sequence[Agreement]


@dataclass(frozen=True, slots=True)
class Overlap:
    """The measured overlap of tiles, by axis, in voxels of the reference.

    Attributes:
        halo: voxels that are discarded at an inner end of a tile.
        source: of the halo: `declared`, `test tensor`, `receptive field`, or `nothing`.
        reach: receptive field; None if it is unlimited or unknown.
        is_global: whether no halo is known to make tiles exact, so that blending is better.
        error: largest difference between tiles and the whole of the test tensors, as a fraction of the tolerance; None
            without test tensors.
        note: the result in a sentence, for the user.
    """

    halo: Mapping[str, int]
    source: str
    reach: Mapping[str, int | None]
    is_global: bool
    error: float | None
    note: str


def measure_overlap(
    package: "Package",
    engine: Engine,
    axes: Sequence[NetworkAxis],
    *,
    uncut: Collection[str] = (),
    exact: bool = False,
    allow_code: bool = False,
    sample: ReferenceTensors | None = None,
    cache: Path | None = None,
) -> Overlap:
    """Measure the halo of a package with the network that will run it.

    Args:
        package: the model.
        engine: the open network.
        axes: of the network; those that an output lacks are never cut.
        uncut: names of axes with only one tile, which need no halo.
        exact: use the receptive field, so that tiles equal the whole up to rounding.
        allow_code: whether Python code of the package may run, to preprocess the test tensors.
        sample: data for the measurement (default: the package's test tensors and tolerances, if it has any).
        cache: folder for results (default: the user's cache).

    Raises:
        PackageError: the network fails at a size that the package declares.
    """
    if sample is None:
        sample = _test_tensors(package, engine.weights_format, allow_code)
    if sample is not None:
        sample = ReferenceTensors(_given(package, axes, sample.inputs), sample.agree)
    measurement = _Measurement(package, engine, tuple(axes), tuple(sorted(uncut)), sample, exact)
    file = cache_file("overlap", measurement.key(), cache)
    known = _read_overlap(file)
    if known is not None:
        return known
    if measurement.cut:
        along = ", ".join(a.name for a in measurement.cut)
        _LOG.info("Measuring the halo that tiles need along %s (once per package)", along)
    found, reproducible = measurement.run()
    if reproducible:
        cache_json(file, asdict(found))
    return found


def _test_tensors(package: "Package", weights_format: str, allow_code: bool) -> ReferenceTensors | None:
    from im2im_zoo.package.reference import reference_of, tolerance

    reference = reference_of(package, allow_code=allow_code)
    if reference is None:
        return None
    allowed = [tolerance(package, weights_format, str(o.id)) for o in package.outputs]
    agree = [Agreement(t.relative, t.absolute, t.mismatched_per_million) for t in allowed]
    return ReferenceTensors(tuple(reference.inputs), agree)


def declared_halo(package: "Package", axes: Sequence[NetworkAxis]) -> dict[str, int]:
    """Return the largest halo that an output declares, by axis, in voxels of the reference, rounded up; 0 without one."""
    result = {}
    for axis in axes:
        halos = [0]
        for output, port in zip(package.outputs, axis.outputs, strict=True):
            if port is not None:
                halos.append(math.ceil(int(getattr(output.axes[port.dim], "halo", 0)) / port.scale))
        result[axis.name] = max(halos)
    return result


def _given(package: "Package", axes: Sequence[NetworkAxis], inputs: Tensors) -> Tensors:
    """Replace optional inputs by None if no axis has them, as they have no image."""
    known = [any(a.inputs[i] is not None for a in axes) for i in range(len(inputs))]
    kept = zip(package.inputs, inputs, known, strict=True)
    return [None if tensor.optional and not has else array for tensor, array, has in kept]


@dataclass(frozen=True, slots=True)
class _Measurement:
    """One measurement of the overlap, and its cache key."""

    package: "Package"
    engine: Engine
    axes: tuple[NetworkAxis, ...]
    uncut: tuple[str, ...]
    sample: ReferenceTensors | None
    exact: bool

    @property
    def cut(self) -> tuple[NetworkAxis, ...]:
        """The axes that may be cut into tiles."""
        return tuple(a for a in self.axes if None not in a.outputs and a.name not in self.uncut)

    def key(self) -> str:
        """Return a hash of everything that the result depends on."""
        return sha256_of_parts(self._dependencies())

    def _dependencies(self) -> Iterator[str | bytes]:
        engine = self.engine
        entry = self.package.weights_entry(engine.weights_format)
        weights = str(entry.sha256 or sha256(self.package.path(entry)))
        what = [engine.weights_format, engine.backend, engine.precision, engine.device]
        parts = [_VERSION, weights, *what, library_version(engine.backend), self.exact, self.axes, self.uncut]
        yield repr([*parts, declared_halo(self.package, self.axes), self.sample and self.sample.agree])
        for array in self.sample.inputs if self.sample else ():
            if array is not None:
                yield f"{array.shape} {array.dtype}"
                yield np.ascontiguousarray(array).tobytes()

    def run(self) -> tuple[Overlap, bool]:
        """Measure the overlap.

        Returns:
            The overlap, and whether it is reproducible: no probing was stopped by its time limit.
        """
        example = self._example()
        starts, budget = _known_field(self.package), _EXACT_BUDGET if self.exact else _BUDGET
        reaches = {
            a.name: measure_receptive_field(
                self._run, self.axes, example, a.name, start=starts.get(a.name, 0), budget=budget
            )
            for a in self.cut
        }
        reproducible = not any(r.cut_short for r in reaches.values())
        declared = declared_halo(self.package, self.axes)
        if self.exact:
            return _exact_overlap(declared, reaches), reproducible
        needed = None
        if self.sample is not None and self.cut:
            needed = required_halo(self._run, self.cut, self.sample.inputs, self.sample.agree)
        return _smallest_overlap(declared, reaches, needed), reproducible

    def _run(self, inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
        return self.engine(inputs)

    def _example(self) -> Tensors:
        """Return the inputs of the test tensors; without any, zeros of the declared shapes and types."""
        return (
            self.sample.inputs if self.sample else [self._empty(i) for i in range(len(self.package.inputs))]
        )

    def _empty(self, index: int) -> NDArray[Any] | None:
        tensor, shape = self.package.inputs[index], []
        ports = {a.inputs[index].dim: a for a in self.axes if a.inputs[index] is not None}  # type: ignore[union-attr]
        for dim, axis in enumerate(tensor.axes):
            port = ports[dim].inputs[index] if dim in ports else None
            if port is not None:
                shape.append(port.size(ports[dim].minimum))
            elif axis.type == "channel":
                shape.append(len(axis.channel_names))
            else:
                shape.append(axis.size if isinstance(axis.size, int) else getattr(axis.size, "min", 1))
        return None if tensor.optional and not ports else np.zeros(shape, str(tensor.dtype))


def _exact_overlap(declared: Mapping[str, int], reaches: Mapping[str, ReceptiveField]) -> Overlap:
    endless = {n: r for n, r in reaches.items() if r.extent is not Extent.EXACT}
    halo = {
        name: (declared[name] if name in endless else reaches[name].voxels) if name in reaches else 0
        for name in declared
    }
    note = (
        _endless_text(endless) if endless else f"{_field_text(reaches)}; with that halo tiles equal the whole"
    )
    source = "nothing" if endless else "receptive field"
    return Overlap(halo, source, _ends(reaches), bool(endless), None, note)


def _smallest_overlap(
    declared: Mapping[str, int], reaches: Mapping[str, ReceptiveField], needed: RequiredHalo | None
) -> Overlap:
    """Return the smallest halo that is known to be enough along each axis, at least the declared one."""
    shown = dict.fromkeys(reaches, False)
    measured = dict.fromkeys(reaches, 0)
    if needed is not None:
        shown = dict(zip(reaches, needed.sufficient, strict=True))
        measured = dict(zip(reaches, needed.voxels, strict=True))
    halo, endless = dict(declared), {}
    for name, r in reaches.items():
        if r.extent is Extent.GLOBAL or (r.extent is Extent.AT_LEAST and not shown[name]):
            endless[name] = r
            halo[name] = max(declared[name], measured[name])
        elif r.extent is Extent.EXACT:
            halo[name] = max(declared[name], min(measured[name], r.voxels) if shown[name] else r.voxels)
        else:
            halo[name] = max(declared[name], measured[name])
    halo |= {name: 0 for name in declared if name not in reaches}
    error = None if needed is None or not math.isfinite(needed.error) else needed.error
    if endless:
        return Overlap(halo, "nothing", _ends(reaches), True, error, _endless_text(endless))
    larger = [n for n in reaches if halo[n] > declared[n]]
    field = _field_text(reaches)
    if needed is None or not all(shown.values()):
        why = "it has no test tensors" if needed is None else "its test tensors are too small to measure less"
        source = "receptive field" if larger else "declared"
        return Overlap(halo, source, _ends(reaches), False, error, f"{field}; {why}")
    source = "test tensor" if larger else "declared"
    note = f"tiles of the test tensors agree with the whole with a halo of {_by_axis(measured)} voxels or more; {field}"
    return Overlap(halo, source, _ends(reaches), False, error, note)


def _ends(reaches: Mapping[str, ReceptiveField]) -> dict[str, int | None]:
    return {n: r.voxels if r.extent is Extent.EXACT else None for n, r in reaches.items()}


def _endless_text(endless: Mapping[str, ReceptiveField]) -> str:
    if any(r.extent is Extent.GLOBAL for r in endless.values()):
        worst = next(r for r in endless.values() if r.extent is Extent.GLOBAL)
        return f"along {', '.join(endless)} the network depends on the whole image, so no halo makes tiles exact ({worst.note})"
    worst = next(iter(endless.values()))
    return f"along {', '.join(endless)} no halo is known to make tiles exact ({worst.note})"


def _field_text(reaches: Mapping[str, ReceptiveField]) -> str:
    found = {n: r.voxels for n, r in reaches.items() if r.extent is Extent.EXACT}
    return (
        f"the receptive field is {_by_axis(found)} voxels at each end"
        if found
        else "the receptive field is unknown"
    )


def _by_axis(voxels: Mapping[str, int]) -> str:
    return ", ".join(f"{axis} {n}" for axis, n in voxels.items())


def _known_field(package: "Package") -> dict[str, int]:
    """Return the receptive field that packages of im2im_zoo state, as a start for probing."""
    field = our_entry(package.raw.get("config"), "receptive_field")
    if not isinstance(field, Mapping):
        return {}
    return {str(a): n for a, n in field.items() if isinstance(n, int) and 0 <= n <= 512}


def _read_overlap(file: Path) -> Overlap | None:
    """Return the overlap of an earlier measurement; None if there is none."""
    try:
        return Overlap(**read_json_object(file))
    except TypeError:
        return None
