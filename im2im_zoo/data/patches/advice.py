"""Patch size, batch size and worker processes that suit images and a machine, each with the reason. Measures no network."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from im2im_zoo.data.patches.extents import Extents

# Voxels of a patch, by the number of space axes: enough context for most cells, and small enough for several in a batch. Without
# a GPU (False) a step should take a second or two.
_PATCH_VOXELS = {(2, True): 256**2, (3, True): 2**19, (2, False): 128**2, (3, False): 2**17}
# Voxels of a batch.
_BATCH_VOXELS = {True: 2**20, False: 2**17}
_BATCHES = (2, 32)
# How much larger than the voxels along y and x those along z are in most stacks, where files do not say it.
_USUAL_LENGTHS = {2: (1.0, 1.0), 3: (4.0, 1.0, 1.0)}
# Of a patch along each axis beside an object: it is seen whole in most patches that have its middle.
_OBJECTS = 2
_MOST_FOR_OBJECTS = 4
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a recipe's key, and why."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What a training step takes, and may take, in bytes.

    Attributes:
        fixed: weights, their gradients and the optimizer's state.
        per_patch: what is kept of each patch of a batch until its gradient is known.
        limit: for all of it.
    """

    fixed: int
    per_patch: int
    limit: int

    @property
    def patches(self) -> int:
        """How many patches fit; below 1 if not even one does."""
        return (self.limit - self.fixed) // max(self.per_patch, 1)


def choose_patch(
    extents: Extents, *, gpu: bool, step: int = 16, shrink: float = 1.0, network: str = "most networks take"
) -> Choice:
    """A patch that lies within every image and is as long along all axes, in micrometres, as images allow.

    Args:
        extents: of images, voxels and objects.
        gpu: whether it is trained on one.
        step: what the sizes are multiples of, voxels; along an axis that is shorter, a power of two.
        shrink: the part of the usual number of voxels that it may have.
        network: who takes multiples of `step`, for the reason.
    """
    limits = extents.smallest
    usual = _PATCH_VOXELS[len(limits), gpu]
    lengths = extents.pixel_size or _USUAL_LENGTHS[len(limits)]
    sides = _cuboid(usual, lengths, limits)
    reasons = [f"about {usual // 1024} k voxels, {'on a GPU' if gpu else 'without a GPU'}"]
    if len(limits) == 3:
        known = extents.pixel_size is not None
        ratio = lengths[0] / lengths[-1]
        reasons.append(
            f"voxels {ratio:.3g} times as long along z {'by the files' if known else 'as usual, which no file says'}"
        )
    if extents.objects is not None:
        wanted = [max(side, _OBJECTS * size) for side, size in zip(sides, extents.objects, strict=True)]
        if wanted != sides:
            reasons.append(f"{_OBJECTS} times the objects, which are up to {_text(extents.objects)}")
        excess = math.prod(wanted) / (_MOST_FOR_OBJECTS * usual)
        reasons += [f"at most {_MOST_FOR_OBJECTS} times the voxels for that"] * (excess > 1)
        sides = [size / max(excess, 1) ** (1 / len(limits)) for size in wanted]
    if shrink < 1:
        sides = [side * shrink ** (1 / len(limits)) for side in sides]
        reasons.append("less, so that a step fits the memory")
    patch = [_on_step(side, limit, step) for side, limit in zip(sides, limits, strict=True)]
    short = ", along shorter axes a power of two" if min(limits) < step else ""
    reasons.append(
        f"multiples of {step}, which {network}{short}, within the smallest image ({_text(limits)})"
    )
    return Choice("data.patch_size", patch, "; ".join(reasons))


def choose_batch(patch: Sequence[int], *, gpu: bool, memory: StepMemory | None = None) -> Choice:
    """How many patches of a size are in a batch: a power of two from 2 to 32, or what of it fits the memory, if that is known."""
    least, most = _BATCHES
    value = min(most, max(least, _power_of_two(_BATCH_VOXELS[gpu] // math.prod(patch))))
    reason = f"about {_BATCH_VOXELS[gpu] // 1024} k voxels a step, from {least} to {most} patches"
    if memory is not None:
        fitting = _power_of_two(memory.patches)
        each, limit = (f"{size / 1e9:.2g} GB" for size in (memory.per_patch, memory.limit))
        if fitting < value:
            value, reason = fitting, f"the most whose step fits {limit}: each patch takes about {each}"
        else:
            reason += f"; each takes about {each} of {limit}"
    return Choice("data.batch_size", value, reason)


def choose_workers(trainer: Mapping[str, Any], *, gpu: bool) -> Choice:
    """How many processes prepare batches.

    Args:
        trainer: of the recipe.
        gpu: whether there is one.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not gpu or trainer.get("accelerator") == "cpu":
        return Choice(
            "data.workers",
            0,
            "the network takes all processors, and a patch is read in a tenth of a millisecond",
        )
    devices = trainer.get("devices", 1)
    shared = devices if isinstance(devices, int) and devices > 0 else 1
    value = max(0, min(_MOST_WORKERS, processors // shared - 1))
    return Choice(
        "data.workers", value, f"of {processors} processors for {shared} GPU(s), one is left to each training"
    )


def _cuboid(voxels: int, lengths: Sequence[float], limits: Sequence[int]) -> list[float]:
    """Sides of so many voxels in all that are equally long in micrometres, but where images are shorter."""
    sides: dict[int, float] = {}
    while len(sides) < len(limits):
        free = [axis for axis in range(len(limits)) if axis not in sides]
        rest = voxels / math.prod(sides.values())
        side = (rest * math.prod(lengths[axis] for axis in free)) ** (1 / len(free))
        short = [axis for axis in free if side / lengths[axis] >= limits[axis]]
        sides |= (
            {axis: limits[axis] for axis in short} if short else {axis: side / lengths[axis] for axis in free}
        )
    return [sides[axis] for axis in range(len(limits))]


def _on_step(side: float, limit: int, step: int) -> int:
    """The multiple of a step next to `side` within `limit`; if there is none, the largest power of two within it."""
    if limit < step:
        return _power_of_two(limit)
    return min(max(round(side / step), 1), limit // step) * step


def _power_of_two(number: int) -> int:
    """The largest power of two up to a number; 1 below it."""
    return 1 << (max(number, 1).bit_length() - 1)


def _text(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
