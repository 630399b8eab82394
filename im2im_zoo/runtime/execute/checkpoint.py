"""Checkpoint files of the statistics of a large image, in the folder of an unfinished run."""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.images.atomic import writing_errors
from im2im_zoo.processing.checkpoint import State

# Least seconds between checkpoints, and the largest fraction of the time spent on writing.
_INTERVAL, _PART = 10.0, 0.05
_PREFIX = "statistics_"


@dataclass(slots=True)
class FileCheckpoint:
    """A checkpoint (see `processing.checkpoint`) in one file, which always holds one complete state.

    Attributes:
        path: of the file.
        resumed: called with the number of voxels that a loaded state covers.
    """

    path: Path
    resumed: Callable[[int], None]
    _due: float = field(default_factory=lambda: time.monotonic() + _INTERVAL)

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
        partial, arrays = self.path.with_suffix(".partial"), dict[str, Any](state())
        with writing_errors(self.path, 0), partial.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        now = time.monotonic()
        self._due = now + max(_INTERVAL, (now - start) / _PART)


def checkpoint_file(folder: Path, key: str) -> Path:
    """Return the checkpoint file of a key, which may have any characters."""
    return folder / f"{_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def has_checkpoint(folder: Path) -> bool:
    """Return whether a folder has any checkpoint."""
    return any(folder.glob(f"{_PREFIX}*.npz"))
