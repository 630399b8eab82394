"""Measurement of the sizes at which a network runs, without knowledge of its layers.

Anything that maps an array (1, channels, *space) float32 to an array (1, channels', *space) can be probed: a torch
module, an exported file behind an engine, a function. The receptive field is measured in `radius`.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[np.float32]
Call = Callable[[Array], NDArray[Any]]

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_BASES = {2: (96, 64, 128, 192, 256), 3: (32, 48, 64, 96, 128)}  # multiples of many steps, the cheapest first


@dataclass(frozen=True, slots=True)
class Grid:
    """Valid sizes of a network along each space axis: `min`, `min + step`, `min + 2 * step`, ... voxels.

    `min` is a multiple of `step`, which is 0 along an axis that has one size only. Tiles whose starts are multiples of
    `step` see the pooling windows of the whole.
    """

    min: tuple[int, ...]
    step: tuple[int, ...]

    def floor(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the largest sizes on the grid that are no larger than `sizes`, but at least `min`."""
        return tuple(
            max(m, size // s * s) if s else m for m, s, size in zip(self.min, self.step, sizes, strict=True)
        )

    def ceil(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return the smallest sizes on the grid that are no smaller than `sizes`; `min` along an axis of one size."""
        return tuple(
            max(m, -(-size // s) * s) if s else m
            for m, s, size in zip(self.min, self.step, sizes, strict=True)
        )


def as_call(network: "Call | nn.Module") -> Call:
    """Return the network as a function of arrays; a torch module runs in inference mode, on its own device."""
    import torch

    if not isinstance(network, torch.nn.Module):
        return network
    module = network
    device = next((p.device for p in module.parameters()), torch.device("cpu"))

    def call(array: Array) -> NDArray[Any]:
        with torch.inference_mode():
            result: NDArray[Any] = module(torch.from_numpy(array).to(device)).cpu().numpy()
            return result

    return call


def step_grid(
    network: "Call | nn.Module",
    channels: int,
    space_ndim: int,
    *,
    reference: Call | None = None,
    patch: Sequence[int] | None = None,
) -> Grid:
    """Measure the smallest size and the step, per space axis, at which a network runs, keeps its size and is exact.

    A torch module is also traced and has to agree with its trace: many networks pad or crop in Python for a size
    that does not divide, and an exported form of them fails there. Where the trace is bound to one size (attention in
    windows), or the network itself (a learned embedding of positions), that is `patch`, if it is given; without it the
    grid is the module's own. The step is also one by which the output shifts when the input does, so that a tile which
    starts on a multiple of it sees what the whole image sees.

    Args:
        network: what to probe, in evaluation mode.
        channels: of its input.
        space_ndim: 2 (y, x) or 3 (z, y, x).
        reference: what `network` has to agree with, if it is not a torch module.
        patch: the size that it was trained at, along each space axis.
    Raises:
        PackageError: it runs at none of the tried sizes, at one only that is not `patch`, or keeps its size at none.
    """
    try:
        return _regular(network, channels, space_ndim, reference)
    except PackageError as error:
        if patch is not None and _Trial.at(tuple(patch), network, channels, reference).holds(patch):
            return Grid(tuple(patch), (0,) * space_ndim)
        if not isinstance(error, _BoundError) or as_call(network) is network:
            raise
        return _regular(as_call(network), channels, space_ndim, None)


class _BoundError(PackageError):
    """The network runs at some size only, not at neighbouring ones."""


def _regular(network: "Call | nn.Module", channels: int, space_ndim: int, reference: Call | None) -> Grid:
    problem, only = "it was not tried", list[int]()
    for base in _BASES[space_ndim]:
        tried = _Trial.at((base,) * space_ndim, network, channels, reference)
        if not tried.holds(tried.base):
            problem = tried.problem
            continue
        steps = [tried.step_along(axis) for axis in range(space_ndim)]
        if all(steps):
            return _aligned(tried.smallest(tuple(s for s in steps if s)), tried)
        only.append(base)
        if {64, 96} <= set(only):
            break  # together they are multiples of all steps but the largest
    if only:
        raise _BoundError(
            f"the network runs at {' and '.join(map(str, only))} voxels along each space axis, and at no regular sizes "
            f"beside: one that is built for one size (as a UNETR is, for its img_size) has to be built for the patches that it is "
            f"trained on, data.patch_size; {tried.problem}"
        )
    raise PackageError(
        f"the network runs at no regular sizes of up to {_BASES[space_ndim][-1]} voxels along each space axis: {problem}"
    )


@dataclass
class _Trial:
    """A network at one base shape, with what is needed to try other shapes; `problem` says why the last one failed."""

    base: tuple[int, ...]
    channels: int
    call: Call
    reference: Call | None
    problem: str = ""

    @classmethod
    def at(
        cls, base: tuple[int, ...], network: "Call | nn.Module", channels: int, reference: Call | None
    ) -> "_Trial":
        import torch

        call = as_call(network)
        if isinstance(network, torch.nn.Module):
            try:
                return cls(base, channels, _traced(network, noise(channels, base)), call)
            except Exception as error:  # noqa: BLE001 a network may raise anything at a size that it cannot take
                return cls(base, channels, _raiser(error), call)
        return cls(base, channels, call, reference)

    def holds(self, shape: Sequence[int]) -> bool:
        """Return whether the network runs at a shape, keeps it, and agrees with the reference."""
        image = noise(self.channels, shape)
        try:
            output = self.call(image)
            expected = output if self.reference is None else self.reference(image)
        except Exception as error:  # noqa: BLE001 a network may raise anything at a size that it cannot take
            self.problem = f"at {'x'.join(map(str, shape))} it raises {_first_line(error)}"
            return False
        if output.shape[2:] != tuple(shape):
            self.problem = f"at {'x'.join(map(str, shape))} its output has the shape {output.shape[2:]}"
            return False
        if output.shape != expected.shape or not _close(output, expected):
            self.problem = f"at {'x'.join(map(str, shape))} its exported form gives another result"
            return False
        return True

    def step_along(self, axis: int) -> int | None:
        """Return the smallest step from the base along an axis at which several sizes hold."""
        size = self.base[axis]
        for step in STEPS:
            if size % step == 0 and all(
                self.holds(with_size(self.base, axis, size + k * step)) for k in (1, 2, 3)
            ):
                return step
        return None

    def smallest(self, step: tuple[int, ...]) -> Grid:
        """Return the grid of this step with the smallest sizes that hold, each by itself and together."""
        smallest = list(self.base)
        for axis, s in enumerate(step):
            sizes = range(s, self.base[axis] + 1, s)
            # The sizes above must hold too: some networks run at one voxel by accident.
            smallest[axis] = next(
                n
                for n in sizes
                if all(
                    self.holds(with_size(self.base, axis, n + k * s))
                    for k in (0, 1, 3)
                    if n + k * s < self.base[axis]
                )
            )
        while not self.holds(smallest) and tuple(smallest) != self.base:
            smallest = [min(n + s, b) for n, s, b in zip(smallest, step, self.base, strict=True)]
        return Grid(tuple(smallest), step)


def _aligned(grid: Grid, trial: _Trial) -> Grid:
    """Return the grid with larger steps where the output does not shift with the input by one step.

    A network that resizes to the size of its skip connection takes every size, but sees other pooling windows.
    """
    steps = tuple(_shift_step(grid, trial, axis) for axis in range(len(grid.step)))
    return Grid(tuple(-(-m // s) * s for m, s in zip(grid.min, steps, strict=True)), steps)


def _shift_step(grid: Grid, trial: _Trial, axis: int) -> int:
    step, length = grid.step[axis], 384
    length = max(length, grid.min[axis]) // step * step
    image = noise(trial.channels, with_size(grid.min, axis, length))
    run = trial.reference or trial.call
    plain = np.moveaxis(run(image), 2 + axis, -1)[..., length // 2 : length // 2 + length // 8]

    def error(shift: int) -> float:
        rolled = np.moveaxis(run(np.roll(image, shift, 2 + axis)), 2 + axis, -1)
        start = length // 2 + shift
        return float(np.abs(rolled[..., start : start + length // 8] - plain).max())

    # Normalisation over the image makes any two images differ a little: compare with the best of the large shifts.
    floor = max(3 * min(error(64), error(96)), 1e-4 * float(np.ptp(plain)))
    candidates = [s for s in STEPS if s % step == 0 and s <= 64]
    return next((s for s in candidates if error(s) <= floor), step)


def _traced(network: "nn.Module", example: Array) -> Call:
    import torch

    with warnings.catch_warnings():
        # Warnings about size-dependent code, which is what is probed here, and about deprecations.
        warnings.simplefilter("ignore")
        with torch.inference_mode():
            traced = torch.jit.trace(network, torch.from_numpy(example), check_trace=False)  # type: ignore[no-untyped-call]

    def call(array: Array) -> NDArray[Any]:
        with torch.inference_mode():
            result: NDArray[Any] = traced(torch.from_numpy(array)).numpy()
            return result

    return call


def _raiser(error: Exception) -> Call:
    def call(array: Array) -> NDArray[Any]:
        raise error

    return call


def noise(channels: int, shape: Sequence[int]) -> Array:
    """Return noise to probe networks with, (1, channels, *shape); always the same for a shape."""
    return np.random.default_rng(0).normal(size=(1, channels, *shape)).astype(np.float32)


def with_size(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    """Return a shape with another size along one axis."""
    return tuple(itertools.chain(shape[:axis], (size,), shape[axis + 1 :]))


def _close(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return bool(np.abs(a - b).max() <= 1e-4 * max(1.0, float(np.abs(b).max())))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
