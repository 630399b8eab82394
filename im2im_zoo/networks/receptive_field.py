"""Measurement of the receptive field of any function of arrays, from a tile's end.

All voxels on one side of a position where a tile may begin or end are replaced, and changes of the output on the other
side are measured (`perturbation`). What does not change there is independent of the cut. The replacements are

- NaN, which goes through most layers, whatever their weights. Not every engine keeps it: some take max(NaN, 0) for 0;
- numbers a million times, and a thousand times, the usual ones. Rectifiers pass them on as they are; without them the far end
  of a receptive field is lost in the rounding of what is near. And usual ones where the others leave a doubt: large ones
  saturate other functions.

This does not cover networks whose output depends on the position of a voxel in a tile (coordinates; upsampling with aligned corners; a step that is
not the network's). So finally a real tile is compared with the whole beyond
the receptive field.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import Im2ImError, PackageError
from im2im_zoo.networks.cuts import Cut, Run, Tensors, at_least, at_most, size_along
from im2im_zoo.networks.perturbation import Influence, Side
from im2im_zoo.networks.tensor_axis import NetworkAxis
from im2im_zoo.networks.tile_errors import Agreement, ErrorCurve, WholeOutput

_FIRST = 64
_AMPLITUDES = (np.nan, 1e6, 1e3, 1.0)
# An effect as large here, at two sizes, as halfway has no end; that of a larger receptive field falls off by then.
_GLOBAL = 128
# Two sizes may be computed by two algorithms, on some devices with 10 bits; what jumps may do so at a few voxels.
_SAME = 1e-3
_JUMPS = 1000.0


class Extent(StrEnum):
    """Knowledge about the end of a receptive field."""

    EXACT = "exact"
    AT_LEAST = "at least"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """Largest distance along one axis at which a cut has an effect.

    Attributes:
        extent: whether `voxels` is exact; or the most that could be measured, and not all; or there is no end.
        voxels: of the reference. Output further from a cut is independent of it.
        note: reason, for the user.
        cut_short: whether there was no time for the next larger size.
    """

    extent: Extent
    voxels: int
    note: str = ""
    cut_short: bool = False


def measure_receptive_field(
    run: Run,
    axes: Sequence[NetworkAxis],
    example: Tensors,
    axis_name: str,
    *,
    start: int = 0,
    limit: int = 1024,
    budget: float = 30.0,
) -> ReceptiveField:
    """Measure how far a cut has an effect along one axis.

    Args:
        run: the network.
        axes: all those along which the sizes of the tensors follow each other.
        example: one array for each input (None: not given), for their types, other dimensions, and usual numbers; its sizes
            along the axes need not be large.
        axis_name: the axis.
        start: expected receptive field, if any; saves trials at smaller sizes.
        limit: the largest size that is tried, voxels of the reference (but the smallest that is possible always is).
        budget: seconds. After the first trial, none is begun that would probably take longer than what is left.

    Raises:
        PackageError: the network runs at none of its sizes, or its outputs have other sizes than the axes say.
    """
    axis = next(a for a in axes if a.name == axis_name)
    # Not at one voxel: with padding on both sides, only the middle weights have an effect.
    others = [tuple(at_least(a, n) for a in axes) for n in (8, 32)]
    others.append(tuple(at_most(a, size_along(example, a)) for a in axes))
    problem: Im2ImError | None = None
    for sizes in dict.fromkeys(others):
        probe = _Probe(run, tuple(axes), tuple(example), axis, sizes)
        try:
            found = _grown(probe, list(_sizes(axis, limit, start)), time.monotonic() + budget)
        except Im2ImError as error:
            problem = problem or error
            continue
        return probe.confirmed(found) if found.extent is Extent.EXACT else found
    raise problem or PackageError(f"there is no size to probe the {axis_name} axis at")


def _grown(probe: "_Probe", sizes: Sequence[int], until: float) -> ReceptiveField:
    """Measure the receptive field at sizes that grow until it ends within them."""
    seen: Influence | None = None
    flat, cut_short = 0, False
    for size in sizes:
        before = time.monotonic()
        try:
            seen = probe.measure(size, grows=size != sizes[-1])
        except Im2ImError:
            if seen is None:
                raise
            break  # too large for it, or for the memory
        if not seen.endless:
            return ReceptiveField(Extent.EXACT, seen.voxels)
        flat = flat + 1 if seen.flat and seen.shown >= _GLOBAL else 0
        now = time.monotonic()
        cut_short = size != sizes[-1] and now + 2.5 * (now - before) > until
        if flat == 2 or cut_short:
            break
    if seen is None or not seen.shown:
        return ReceptiveField(Extent.AT_LEAST, 0, "the network takes no size that could be cut")
    if seen.beyond_rounding is not None and not seen.fading:
        return ReceptiveField(Extent.EXACT, seen.beyond_rounding, "beyond it only rounding errors change")
    if flat == 2 or (seen.flat and probe.axis.fixed):
        return ReceptiveField(
            Extent.GLOBAL, seen.shown, f"a cut has the same effect at {seen.shown} voxels as at half of that"
        )
    return ReceptiveField(
        Extent.AT_LEAST,
        seen.shown,
        f"a cut still has an effect at {seen.shown} voxels, the most that was tried",
    )


def _sizes(axis: NetworkAxis, limit: int, start: int) -> Iterator[int]:
    size = _first_size(axis, start)
    yield size
    while not axis.fixed and 2 * size <= limit:
        size = at_least(axis, 2 * size)
        yield size


def _first_size(axis: NetworkAxis, start: int) -> int:
    return at_least(axis, max(_FIRST, 2 * axis.step, 2 * (start + axis.step)))


@dataclass(frozen=True, slots=True)
class _Probe:
    """A network with the sizes of all axes except one."""

    run: Run
    axes: tuple[NetworkAxis, ...]
    example: tuple[NDArray[Any] | None, ...]
    axis: NetworkAxis
    others: tuple[int, ...]

    def noise(self, size: int, amplitude: float, seed: int) -> list[NDArray[Any] | None]:
        """Return inputs of a size along the axis, of usual random numbers times an amplitude."""
        rng = np.random.default_rng(seed)
        result: list[NDArray[Any] | None] = []
        for index, array in enumerate(self.example):
            shape = [] if array is None else list(array.shape)
            for axis, n in zip(self.axes, self.others, strict=True):
                port = axis.inputs[index]
                if shape and port is not None:
                    shape[port.dim] = port.size(size if axis is self.axis else n)
            result.append(None if array is None else _numbers(rng, array, shape, amplitude))
        return result

    def measure(self, size: int, grows: bool) -> Influence:
        """Replace all voxels before, then all after, a cut near the middle, and measure the influence.

        Args:
            size: voxels along the axis.
            grows: whether there are larger sizes; then it is enough to find that this one is too small.
        """
        axis = self.axis
        begin = size // 2 // axis.step * axis.step
        if not begin or begin == size:
            return Influence(0, 0, True, None, False, False)
        base = self.noise(size, 1.0, 0)
        plain = self.run(list(base))
        trials: list[Influence] = []
        # As sizes are minimum + n * step, tiles end where this is a multiple of the step from the end.
        for side in (Side(axis, begin, before=True), Side(axis, size - begin, before=False)):
            tried: list[Influence] = []
            for amplitude in _AMPLITUDES:
                changed = self.run(side.replaced(base, self.noise(size, amplitude, 1)))
                tried.append(side.influence(plain, changed, numbers=not np.isnan(amplitude)))
                if grows and tried[0].endless and tried[0].shown < _GLOBAL:
                    return Influence(tried[0].voxels, tried[0].shown, True, None, False, True)
                if _settled(tried):
                    break
            trials += tried
            if tried[-1].endless and (tried[-1].flat or tried[-1].fading):
                break
        return Influence.union(trials)

    def confirmed(self, found: ReceptiveField) -> ReceptiveField:
        """Return the finding, corrected if real tiles differ from the whole beyond it."""
        axis = self.axis
        size = axis.minimum
        if not axis.fixed:
            size = at_least(axis, 2 * max(axis.minimum, found.voxels + 8 * axis.step))
        inputs = self.noise(size, 1.0, 2)
        outputs = self.run(list(inputs))
        agree = tuple(Agreement(_SAME, _SAME * _largest(o), _JUMPS) for o in outputs)
        whole = WholeOutput(self.run, inputs, outputs, agree)
        curve = ErrorCurve.merged([whole.curve(cut) for cut in _ends(axis, size)])
        if len(curve.within) <= found.voxels or curve.within[found.voxels]:
            return found
        agrees_from = curve.first_within()
        if agrees_from is None:
            note = "the output depends on the position in the input, or on the input's size"
            return ReceptiveField(Extent.GLOBAL, len(curve.within), note)
        return ReceptiveField(
            Extent.EXACT,
            agrees_from,
            f"replaced voxels have an effect up to {found.voxels} voxels away, a real cut further",
        )


def _settled(tried: Sequence[Influence]) -> bool:
    """Return whether another amplitude adds nothing: the last has no end, or NaN has an effect as far as numbers."""
    last = tried[-1]
    if last.endless:
        return last.flat or last.fading
    return len(tried) == 3 and not tried[0].endless and tried[0].voxels >= max(t.voxels for t in tried)


def _ends(axis: NetworkAxis, size: int) -> list[Cut]:
    """Return tiles that begin, and end, within a size, at odd steps, which reveal a step that is too small."""
    if axis.fixed:
        return [Cut(axis, odd, size) for odd in [_odd_steps(axis, size // 4)] if odd < size]
    return [
        Cut(axis, begin, size - begin)
        for begin in [_odd_steps(axis, size // 2)]
        if size - begin >= axis.minimum
    ] + [Cut(axis, 0, at_most(axis, size - _odd_steps(axis, size // 2)))]


def _odd_steps(axis: NetworkAxis, most: int) -> int:
    steps = max(1, most // axis.step)
    return (steps - 1 + steps % 2) * axis.step


def _largest(output: NDArray[Any]) -> float:
    values = output[np.isfinite(output)]
    return float(np.abs(values).max(initial=0.0)) or 1.0


def _numbers(
    rng: np.random.Generator, example: NDArray[Any], shape: Sequence[int], amplitude: float
) -> NDArray[Any]:
    """Return random numbers with mean and deviation of an example, times an amplitude if its type has room for it."""
    if example.dtype.kind != "f":
        # Only the example's own values: others may be invalid (labels, indices).
        values = np.unique(example) if example.size else np.zeros(1, example.dtype)
        return rng.choice(values if len(values) > 1 else np.array([0, 1], example.dtype), size=shape)
    finite = example[np.isfinite(example)]
    mean, deviation = (float(finite.mean()), float(finite.std())) if finite.size else (0.0, 1.0)
    noise = rng.standard_normal(shape) * (amplitude * (deviation or 1.0)) + mean
    with np.errstate(over="ignore"):  # infinite in half precision, which has an effect too
        result: NDArray[Any] = noise.astype(example.dtype)
    return result
