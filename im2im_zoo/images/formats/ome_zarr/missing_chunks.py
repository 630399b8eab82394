"""Chunks of a zarr array on the disk that have no file. A reader gets the fill value there, whether or not they were lost."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.images.lazy import MissingChunks


def count_missing_chunks(path: Path, array: Any, used: Sequence[NDArray[np.bool_]]) -> MissingChunks:
    """Count the chunks (or shards) that hold used voxels and have no file; lists the folders of the array once.

    Args:
        path: folder of the array.
        array: the array.
        used: whether each position along each axis is read.
    """
    sides = array.shards or array.chunks
    needed = [
        np.logical_or.reduceat(axis, np.arange(0, len(axis), side))
        for axis, side in zip(used, sides, strict=True)
    ]
    total = math.prod(int(axis.sum()) for axis in needed)
    return MissingChunks(total - _count(str(path), "", needed), total, array.fill_value)


def _count(folder: str, key: str, needed: Sequence[NDArray[np.bool_]]) -> int:
    """Count the needed chunks below a folder, whose key is that of its chunks up to there; leaves out other folders."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = f"{key}/{entry.name}" if key else entry.name
            # Keys are 0.1.2 or 0/1/2, since zarr 3 with a c in front.
            place = [part for part in re.split(r"[./]", inner) if part != "c"]
            is_needed = len(place) <= len(needed) and all(
                part.isdecimal() and int(part) < len(axis) and axis[int(part)]
                for part, axis in zip(place, needed, strict=False)
            )
            if is_needed and entry.is_dir():
                found += _count(entry.path, inner, needed)
            elif is_needed and len(place) == len(needed):
                found += 1
    return found
