"""Choice of patch size, batch size and worker processes for images and a machine, each with its reason."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from im2im_zoo.data.patches.extents import ImageExtents

# Voxels of a patch, by the number of space axes and whether there is a GPU: enough context for most cells, and several fit a
# batch. Without a GPU a step should take a second or two.
_PATCH_VOXELS = {(2, True): 256**2, (3, True): 2**19, (2, False): 128**2, (3, False): 2**17}
# Voxels of a batch.
_BATCH_VOXELS = {True: 2**20, False: 2**17}
_BATCHES = (2, 32)
# Relative voxel sizes along (z,) y, x of most stacks, used where files do not have them.
_USUAL_LENGTHS = {2: (1.0, 1.0), 3: (4.0, 1.0, 1.0)}
# Size of a patch relative to an object: most patches that contain its center then contain all of it.
_OBJECTS = 2
_MOST_FOR_OBJECTS = 4
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """A value selected for a recipe's key, and the reason."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Memory of a training step, in bytes.

    Attributes:
        fixed: of weights, their gradients and the optimizer's state.
        per_patch: saved for each patch of a batch until its gradient is computed.
        limit: available for all of it.
    """

    fixed: int
    per_patch: int
    limit: int

    @property
    def patches(self) -> int:
        """Number of patches that fit; below 1 if none does."""
        return (self.limit - self.fixed) // max(self.per_patch, 1)


def choose_patch(
    extents: ImageExtents,
    *,
    gpu: bool,
    step: int = 16,
    shrink: float = 1.0,
    network: str = "most networks accept",
) -> Choice:
    """Choose a patch size that fits every image, with sides of equal length in micrometres as far as images allow.

    Args:
        extents: of images, voxels and objects.
        gpu: whether training uses one.
        step: voxels of which sizes are multiples; along a shorter axis the size is a power of two.
        shrink: share of the usual number of voxels.
        network: which networks accept multiples of `step`, for the reason.
    """
    limits = extents.smallest
    usual = _PATCH_VOXELS[len(limits), gpu]
    lengths = extents.pixel_size or _USUAL_LENGTHS[len(limits)]
    sides = _make_cuboid(usual, lengths, limits)
    reasons = [f"about {usual // 1024} k voxels, {'on a GPU' if gpu else 'without a GPU'}"]
    if len(limits) == 3:
        known = extents.pixel_size is not None
        ratio = lengths[0] / lengths[-1]
        reasons.append(
            f"voxels {ratio:.3g} times as long along z ({'from the files' if known else 'assumed, as the files have no pixel size'})"
        )
    if extents.objects is not None:
        wanted = [max(side, _OBJECTS * size) for side, size in zip(sides, extents.objects, strict=True)]
        if wanted != sides:
            reasons.append(
                f"{_OBJECTS} times the objects, which measure up to {_format_sizes(extents.objects)}"
            )
        excess = math.prod(wanted) / (_MOST_FOR_OBJECTS * usual)
        reasons += [f"but at most {_MOST_FOR_OBJECTS} times the usual voxels"] * (excess > 1)
        sides = [size / max(excess, 1) ** (1 / len(limits)) for size in wanted]
    if shrink < 1:
        sides = [side * shrink ** (1 / len(limits)) for side in sides]
        reasons.append("reduced so that a step fits the memory")
    patch = [_round_to_step(side, limit, step) for side, limit in zip(sides, limits, strict=True)]
    short = ", along shorter axes a power of two" if min(limits) < step else ""
    reasons.append(
        f"multiples of {step}, which {network}{short}, within the smallest image ({_format_sizes(limits)})"
    )
    return Choice("data.patch_size", patch, "; ".join(reasons))


def choose_batch(patch: Sequence[int], *, gpu: bool, memory: StepMemory | None = None) -> Choice:
    """Choose the number of patches in a batch: a power of two from 2 to 32, or fewer if the memory is known and smaller.

    Args:
        patch: voxels of a patch along the space axes.
        gpu: whether training uses one.
        memory: of a training step, if it is known.
    """
    least, most = _BATCHES
    value = min(most, max(least, _floor_power_of_two(_BATCH_VOXELS[gpu] // math.prod(patch))))
    reason = f"about {_BATCH_VOXELS[gpu] // 1024} k voxels a step, from {least} to {most} patches"
    if memory is not None:
        fitting = _floor_power_of_two(memory.patches)
        each, limit = (f"{size / 1e9:.2g} GB" for size in (memory.per_patch, memory.limit))
        if fitting < value:
            value, reason = fitting, f"the most that fit {limit}: each patch needs about {each}"
        else:
            reason += f"; each needs about {each} of {limit}"
    return Choice("data.batch_size", value, reason)


def choose_workers(trainer: Mapping[str, Any], *, gpu: bool) -> Choice:
    """Choose the number of processes that prepare batches.

    Args:
        trainer: the recipe's `trainer` section.
        gpu: whether there is one.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not gpu or trainer.get("accelerator") == "cpu":
        return Choice(
            "data.workers",
            0,
            "the network uses all processors, and a patch is read in a tenth of a millisecond",
        )
    devices = trainer.get("devices", 1)
    shared = devices if isinstance(devices, int) and devices > 0 else 1
    value = max(0, min(_MOST_WORKERS, processors // shared - 1))
    return Choice(
        "data.workers",
        value,
        f"{processors} processors for {shared} GPU(s), of which each training process needs one",
    )


def _make_cuboid(voxels: int, lengths: Sequence[float], limits: Sequence[int]) -> list[float]:
    """Return the sides of a cuboid with the given number of voxels, equally long in micrometres except where images are shorter."""
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


def _round_to_step(side: float, limit: int, step: int) -> int:
    """Return the multiple of `step` closest to `side` within `limit`; if there is none, the largest power of two within it."""
    if limit < step:
        return _floor_power_of_two(limit)
    return min(max(round(side / step), 1), limit // step) * step


def _floor_power_of_two(number: int) -> int:
    """Return the largest power of two up to a number, at least 1."""
    return 1 << (max(number, 1).bit_length() - 1)


def _format_sizes(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
