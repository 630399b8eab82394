"""Chunks of a zarr array on the disk that have no file. A reader gets the fill value there, whether or not they were lost."""

import math
import os
import re
from collections.abc import Iterable, Sequence
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
    needed = _needed(array, used)
    total = math.prod(int(axis.sum()) for axis in needed)
    return MissingChunks(total - _count(str(path), "", needed), total, array.fill_value)


def count_missing_keys(
    keys: Iterable[Sequence[str]], array: Any, used: Sequence[NDArray[np.bool_]]
) -> MissingChunks:
    """Count the chunks (or shards) that hold used voxels and are not among the keys, each split into its numbers; see `count_missing_chunks`."""
    needed = _needed(array, used)
    total = math.prod(int(axis.sum()) for axis in needed)
    found = sum(len(key) == len(needed) and _is_needed(key, needed) for key in keys)
    return MissingChunks(total - found, total, array.fill_value)


def _needed(array: Any, used: Sequence[NDArray[np.bool_]]) -> list[NDArray[np.bool_]]:
    """Return for each axis which chunks (or shards) along it hold used voxels."""
    sides = array.shards or array.chunks
    return [
        np.logical_or.reduceat(axis, np.arange(0, len(axis), side))
        for axis, side in zip(used, sides, strict=True)
    ]


def _is_needed(key: Sequence[str], needed: Sequence[NDArray[np.bool_]]) -> bool:
    return len(key) <= len(needed) and all(
        part.isdecimal() and int(part) < len(axis) and bool(axis[int(part)])
        for part, axis in zip(key, needed, strict=False)
    )


def _count(folder: str, key: str, needed: Sequence[NDArray[np.bool_]]) -> int:
    """Count the needed chunks below a folder, whose key is that of its chunks up to there; leaves out other folders."""
    found = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            inner = f"{key}/{entry.name}" if key else entry.name
            # Keys are 0.1.2 or 0/1/2, since zarr 3 with a c in front.
            place = [part for part in re.split(r"[./]", inner) if part != "c"]
            is_needed = _is_needed(place, needed)
            if is_needed and entry.is_dir():
                found += _count(entry.path, inner, needed)
            elif is_needed and len(place) == len(needed):
                found += 1
    return found
