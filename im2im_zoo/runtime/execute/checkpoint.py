"""What statistics of a large image have counted so far, in a file of the folder of a run that is not finished."""

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

# Seconds between writing; it may take this part of the time.
_INTERVAL, _PART = 10.0, 0.05
_PREFIX = "statistics_"


@dataclass(slots=True)
class FileCheckpoint:
    """A checkpoint (see `processing.checkpoint`) in one file, which always holds one whole state.

    Attributes:
        path: of the file.
        resumed: called with the voxels that a state that was found stands for.
    """

    path: Path
    resumed: Callable[[int], None]
    _due: float = field(default_factory=lambda: time.monotonic() + _INTERVAL)

    def load(self) -> State | None:
        """The state in the file, if there is one that can be read."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                state = dict(file)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        self.resumed(int(state["done"][1]))
        return state

    def save(self, state: Callable[[], State]) -> None:
        """Write a state every some seconds."""
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
    """The file for the statistics of a key, of any characters."""
    return folder / f"{_PREFIX}{hashlib.sha256(key.encode()).hexdigest()[:16]}.npz"


def any_checkpoint(folder: Path) -> bool:
    """Whether a run has kept any."""
    return any(folder.glob(f"{_PREFIX}*.npz"))
