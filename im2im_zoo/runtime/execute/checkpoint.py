"""Checkpoint files of the statistics of a large image, in the folder of an unfinished run."""

import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.atomic import atomic_file
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.images.atomic import writing_errors
from im2im_zoo.processing.checkpoint import State
from im2im_zoo.runtime.plan.memory import STATISTICS_BLOCK_BYTES

_PREFIX = "statistics_"


@dataclass(frozen=True, slots=True)
class StatisticsLimits:
    """Limits of the pass over a whole image for its statistics; the result is the same for any.

    Attributes:
        block_bytes: of the blocks in which the image is read.
        interval_s: least seconds between checkpoints.
        writing: largest fraction of the time spent on writing checkpoints.
    """

    block_bytes: int = STATISTICS_BLOCK_BYTES
    interval_s: float = 10.0
    writing: float = 0.05


@dataclass(slots=True)
class FileCheckpoint:
    """A checkpoint (see `processing.checkpoint`) in one file, which always holds one complete state.

    Attributes:
        path: of the file.
        resumed: called with the number of voxels that a loaded state covers.
        limits: on the time for writing.
    """

    path: Path
    resumed: Callable[[int], None]
    limits: StatisticsLimits = StatisticsLimits()
    _due: float = field(init=False)

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.limits.interval_s

    def load(self) -> State | None:
        """Return the state in the file; None if it is missing or damaged."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                state = dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        self.resumed(int(state["done"][1]))
        return state

    def save(self, state: Callable[[], State]) -> None:
        """Write a state, unless the last was written some seconds ago."""
        start = time.monotonic()
        if start < self._due:
            return
        arrays = dict[str, Any](state())
        with writing_errors(self.path, 0), atomic_file(self.path, durable=True) as file:
            np.savez(file, **arrays)
        now = time.monotonic()
        self._due = now + max(self.limits.interval_s, (now - start) / self.limits.writing)


def checkpoint_file(folder: Path, key: str) -> Path:
    """Return the checkpoint file of a key, which may have any characters."""
    return folder / f"{_PREFIX}{sha256_of(key)[:16]}.npz"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a folder has any checkpoint."""
    return any(folder.glob(f"{_PREFIX}*.npz"))
