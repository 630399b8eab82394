"""Patch size, batch size and worker processes that suit images and a machine, each with the reason. Measures no network."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# A multiple that networks of four halvings take.
_STEP = 16
# Enough context for most cells, and small enough for many patches in a batch.
_LARGEST = {2: (256, 256), 3: (32, 128, 128)}
# Voxels of a batch that networks of usual width train on in a few GB; without a GPU, in a second or two.
_BATCH_VOXELS = {True: 2**20, False: 2**17}
_MOST_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a recipe's key, and why."""

    key: str
    value: Any
    reason: str


def choose_patch(smallest: Sequence[int]) -> Choice:
    """A patch that lies within every image.

    Args:
        smallest: voxels of the smallest image along each space axis, (z,) y, x.
    """
    patch = []
    for size, most in zip(smallest, _LARGEST[len(smallest)], strict=True):
        step = _STEP if size >= _STEP else 1
        patch.append(min(most, size // step * step))
    sizes = " x ".join(map(str, smallest))
    reason = f"the largest multiples of {_STEP} up to {' x '.join(map(str, _LARGEST[len(smallest)]))} within the smallest image ({sizes})"
    return Choice("data.patch_size", patch, reason)


def choose_batch(patch: Sequence[int], *, gpu: bool) -> Choice:
    """How many patches of a size are in a batch: a power of two from 1 to 32."""
    fitting = max(1, _BATCH_VOXELS[gpu] // math.prod(patch))
    value = min(32, 2 ** int(math.log2(fitting)))
    where = "a GPU" if gpu else "processors alone"
    return Choice("data.batch_size", value, f"about {_BATCH_VOXELS[gpu] // 1000} k voxels a step, on {where}")


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
