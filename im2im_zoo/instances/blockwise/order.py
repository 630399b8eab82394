"""Objects in raster order of their first voxels, which is the order of their numbers. Pure functions of label arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_voxels(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Where in the flat array each of the labels 1..N begins, if they are numbered in raster order."""
    # Each begins where the highest number so far rises.
    return np.flatnonzero(np.diff(np.maximum.accumulate(labels.ravel()), prepend=np.int32(0)))


def numbered(labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """The same objects, numbered 1..N in raster order of their first voxels; 0 stays."""
    values, lengths = _runs(labels)
    known, first, places = np.unique(values, return_index=True, return_inverse=True)
    objects = known > 0
    ranks = np.zeros(len(known), np.int32)
    ranks[objects] = 1 + np.argsort(np.argsort(first[objects]))
    return np.repeat(ranks[places], lengths).reshape(labels.shape)


def compacted(ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids of objects, 0 for the background, as numbers 1..n in ascending order of the ids, and the ids of these."""
    values, lengths = _runs(ids)
    known, places = np.unique(values, return_inverse=True)
    objects = known[known > 0]
    numbers = (places + 1 - np.count_nonzero(known == 0)).astype(np.int32)
    return np.repeat(numbers, lengths).reshape(ids.shape), objects


def _runs(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The values of runs of equal ones in the flat array, and how long they are."""
    flat = array.ravel()
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, flat.size), bool), flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(starts, append=flat.size)
