"""Number objects in raster order of their first voxels: pure functions of label arrays."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def first_voxels(labels: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return the flat index of the first voxel of each label 1..N, which must be numbered in raster order."""
    # A label begins where the running maximum increases.
    return np.flatnonzero(np.diff(np.maximum.accumulate(labels.ravel()), prepend=np.int32(0)))


def renumber(labels: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """Renumber objects 1..N in raster order of their first voxels; 0 is kept."""
    values, lengths = _runs(labels)
    known, first, places = np.unique(values, return_index=True, return_inverse=True)
    objects = known > 0
    ranks = np.zeros(len(known), np.int32)
    ranks[objects] = 1 + np.argsort(np.argsort(first[objects]))
    return np.repeat(ranks[places], lengths).reshape(labels.shape)


def compact(ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Replace ids of objects by numbers 1..n in ascending order of the ids; 0 is background.

    Returns:
        The numbers, and the id of each.
    """
    values, lengths = _runs(ids)
    known, places = np.unique(values, return_inverse=True)
    objects = known[known > 0]
    numbers = (places + 1 - np.count_nonzero(known == 0)).astype(np.int32)
    return np.repeat(numbers, lengths).reshape(ids.shape), objects


def _runs(array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the values and lengths of the runs of equal values in the flat array."""
    flat = array.ravel()
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, flat.size), bool), flat[1:] != flat[:-1]]))
    return flat[starts], np.diff(starts, append=flat.size)
