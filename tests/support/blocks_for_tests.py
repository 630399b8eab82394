"""Grouping of maps in memory in blocks of any size, and scenes whose instances are known."""

import hashlib
import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.instances.blockwise import group_in_blocks
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.instances.blockwise.steps import StepRunner
from im2im_zoo.instances.grouping import Grouping
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.runtime.execute.executors.in_process import InProcess

PLENTY = 2**40


@dataclass
class Told:
    """Labels in memory, and what is told on the way; it can be stopped before something is done."""

    labels: NDArray[Any]
    done: set[tuple[str, int]] = field(default_factory=set)
    stop_after: int | None = None

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        self.labels[tuple(region.values())] = block

    def __call__(self, step: str, block: int) -> None:
        if self.stop_after is not None and len(self.done) >= self.stop_after:
            raise KeyboardInterrupt
        self.done.add((step, block))


def code_of(folder: Path, code: str | ModuleType, kwargs: Mapping[str, Any]) -> Code:
    """A grouping by a file in a folder, as a package has it."""
    text = code if isinstance(code, str) else inspect.getsource(code)
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "method.py").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Code(Grouping("method.py", digest, "group", "maps", dict(kwargs)), folder, allow_code=True)


def sample_of(
    maps: NDArray[np.float32],
    block: tuple[int, ...],
    folder: Path,
    code: str | ModuleType,
    kwargs: Mapping[str, Any] | None = None,
    room: int = PLENTY,
) -> Sample:
    """The maps (channel, (z,) y, x) as they are grouped in blocks."""
    space = ("z", "y", "x")[-len(block) :]
    return Sample(
        xr.DataArray(maps, dims=("channel", *space)),
        space,
        BlockGrid(maps.shape[1:], block),
        folder / "work",
        code_of(folder / "package", code, kwargs or {}),
        room,
        100,
    )


def in_blocks(
    sample: Sample, dtype: str = "uint32", done: Collection[tuple[str, int]] = (), told: Told | None = None
) -> tuple[NDArray[Any], int, list[str]]:
    """The labels, how many objects there are, and the warnings."""
    told = told or Told(np.zeros(sample.grid.shape, dtype))
    target = LabelImage(told, sample.space, sample.grid.shape, dtype, sample.space, {}, "a model")
    objects, warnings = group_in_blocks(sample, target, StepRunner(InProcess(), done, told))
    return told.labels, objects, warnings


def blobs(random: np.random.Generator, shape: tuple[int, ...], count: int) -> NDArray[np.int32]:
    """Ellipsoids of any size that touch, nest in each other and come in several parts, each with its number."""
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int32)
    for number in range(1, count + 1):
        for _ in range(random.integers(1, 3)):
            centre = [random.uniform(0, n) for n in shape]
            radii = [random.uniform(1, 1 + n / 3) for n in shape]
            distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
            hole = random.random() < 0.3
            labels[(distance < 1) & ~(hole & (distance < 0.3))] = number
    return labels
