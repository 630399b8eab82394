"""Voxels that the objects of two label images share, counted part by part; the parts do not change the result.

Counts are kept sparse: only pairs of objects that touch cost anything, so that 10^5 objects are compared in seconds; and of the
images one part at a time is in memory, so that they may be of any size.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.processing.blocks import block_shape, regions

# Voxels of both images that are in memory at once; a pass takes about 60 bytes for each.
PART = 1 << 21
# Counts that are kept before the counts of the same objects are merged.
_MAX_UNMERGED = 1 << 22


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Pairs of objects that share voxels, and the objects' ids.

    Attributes:
        ids_p, ids_t: label of each predicted and true object, sorted, without 0.
        areas_p, areas_t: voxels of each.
        rows, columns: (pairs,) index of the true and of the predicted object of each pair, sorted by row, then column.
        common: (pairs,) voxels of both.
        iou: (pairs,) intersection over union, in (0, 1].
        shared, total_p, total_t: voxels in both foregrounds, and in each.
    """

    ids_p: NDArray[np.int64]
    ids_t: NDArray[np.int64]
    areas_p: NDArray[np.int64]
    areas_t: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    common: NDArray[np.int64]
    iou: NDArray[np.float64]
    shared: int
    total_p: int
    total_t: int


class Contingency:
    """Overlap counts of two label images, added part by part."""

    def __init__(self) -> None:
        self._areas: dict[str, list[NDArray[np.int64]]] = {"prediction": [], "target": []}
        self._pairs: list[NDArray[np.int64]] = []

    def add(self, prediction: NDArray[Any], target: NDArray[Any]) -> None:
        """Count a part: labels of the same voxels, of one shape.

        Raises:
            EvaluationError: labels that are negative or not whole numbers.
        """
        p, ids_p, areas_p = _compact(as_labels(prediction, "prediction"))
        t, ids_t, areas_t = _compact(as_labels(target, "target"))
        both = np.flatnonzero((t > 0) & (p > 0))
        rows, columns, counts = _count_pairs(t[both], p[both], (len(ids_t), len(ids_p)))
        self._areas["prediction"].append(np.stack([ids_p, areas_p]))
        self._areas["target"].append(np.stack([ids_t, areas_t]))
        self._pairs.append(np.stack([ids_t[rows], ids_p[columns], counts]))
        for parts in (*self._areas.values(), self._pairs):
            if sum(p.shape[1] for p in parts) > _MAX_UNMERGED:
                parts[:] = [_sum_by_key(parts)]

    def overlaps(self) -> Overlaps:
        """Return the counts of all parts added so far."""
        empty = np.zeros((2, 0), np.int64)
        ids_p, areas_p = _sum_by_key(self._areas["prediction"] or [empty])
        ids_t, areas_t = _sum_by_key(self._areas["target"] or [empty])
        true, predicted, common = _sum_by_key(self._pairs or [np.zeros((3, 0), np.int64)])
        rows, columns = np.searchsorted(ids_t, true), np.searchsorted(ids_p, predicted)
        return Overlaps(
            ids_p=ids_p,
            ids_t=ids_t,
            areas_p=areas_p,
            areas_t=areas_t,
            rows=rows,
            columns=columns,
            common=common,
            iou=common / (areas_t[rows] + areas_p[columns] - common),
            shared=int(common.sum()),
            total_p=int(areas_p.sum()),
            total_t=int(areas_t.sum()),
        )


def overlaps(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> Overlaps:
    """Return the objects of two label images (one shape, whole numbers, 0 = background) and the IoU of those that touch.

    Time and memory grow with voxels plus touching pairs, never with objects times objects.

    Raises:
        EvaluationError: the shapes differ, or labels that are negative or not whole numbers.
    """
    if prediction.shape != target.shape:
        raise EvaluationError(
            f"prediction labels have shape {prediction.shape}, target {target.shape}: they must be the same"
        )
    counted, p, t = Contingency(), prediction.ravel(), target.ravel()
    for start in range(0, p.size, PART):
        counted.add(p[start : start + PART], t[start : start + PART])
    return counted.overlaps()


def overlaps_of(prediction: xr.DataArray, target: xr.DataArray, *, part: int = PART) -> Overlaps:
    """Return the overlaps of two lazy label images with the same axes and sizes, reading `part` voxels at a time.

    Raises:
        EvaluationError: see `Contingency.add`.
    """
    counted = Contingency()
    for region in parts_of((prediction, target), part):
        counted.add(prediction.isel(region).to_numpy(), target.isel(region).to_numpy())
    return counted.overlaps()


def parts_of(images: tuple[xr.DataArray, ...], voxels: int = PART) -> Iterator[dict[str, slice]]:
    """Yield disjoint regions that cover images of one size, of at most `voxels` voxels, aligned to their chunks."""
    sizes = {str(a): n for a, n in images[0].sizes.items()}
    units = {a: max(_chunk(image, a) for image in images) for a in sizes}
    return regions(sizes, block_shape(sizes, voxels, units=units))


def _chunk(image: xr.DataArray, axis: str) -> int:
    chunks: Mapping[Any, Any] = image.encoding.get("preferred_chunks") or {}
    return int(chunks.get(axis, 1))


def as_labels(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Return labels as whole numbers that are not negative.

    Raises:
        EvaluationError: fractions, negative numbers, NaN or infinity; `name` is the image's name in the message.
    """
    if labels.dtype.kind == "f":
        fractions = np.asarray(labels, dtype=np.float64)
        whole = np.isfinite(fractions) & (fractions == np.round(fractions))
        if not whole.all():
            raise EvaluationError(
                f"{name}: instance labels must be whole numbers, but this image of {labels.dtype} holds "
                f"{fractions[~whole].flat[0]:g}; turn probabilities into labels first, or evaluate as 'semantic'"
            )
        labels = labels.astype(np.int64)
    elif labels.dtype.kind == "b":
        labels = labels.astype(np.uint8)
    elif labels.dtype.kind not in "ui":
        raise EvaluationError(f"{name}: labels must be whole numbers, not {labels.dtype}")
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise EvaluationError(
            f"{name}: holds the label {labels.min()}; labels count from 1, and 0 is background"
        )
    return labels


def _compact(labels: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return flat labels renumbered to 0..n without gaps, the original labels of 1..n, and the voxels of each."""
    flat = labels.ravel()
    top = int(flat.max()) if flat.size else 0
    if top < 2 * flat.size + (1 << 16):  # counting beats sorting unless labels are huge and scattered
        areas = np.bincount(flat.astype(np.intp), minlength=top + 1)
        ids = np.flatnonzero(areas[1:]) + 1
        renumber = np.zeros(top + 1, dtype=np.int32)
        renumber[ids] = np.arange(len(ids)) + 1
        return renumber[flat.astype(np.intp)], ids.astype(np.int64), areas[ids].astype(np.int64)
    found, inverse, counts = np.unique(flat, return_inverse=True, return_counts=True)
    first = int(found[0] == 0)
    compact = (inverse + (1 - first)).astype(np.int32)
    return compact, found[first:].astype(np.int64), counts[first:].astype(np.int64)


def _count_pairs(
    t: NDArray[np.int32], p: NDArray[np.int32], shape: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Count the voxels of every touching pair of compact labels of objects, which count from 1: indices from 0, and counts."""
    from scipy.sparse import coo_array

    where = (t.astype(np.int64) - 1, p.astype(np.int64) - 1)
    found = coo_array((np.ones(len(t), dtype=np.int64), where), shape=shape).tocsr().tocoo()
    return found.row.astype(np.int64), found.col.astype(np.int64), found.data


def _sum_by_key(parts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return columns of keys and, in the last row, counts: each key once, sorted, the first key the slowest."""
    together = np.concatenate(parts, axis=1)
    if not together.shape[1]:
        return together
    together = together[:, np.lexsort(together[-2::-1])]
    new = np.flatnonzero(np.any(together[:-1, 1:] != together[:-1, :-1], axis=0)) + 1
    starts = np.concatenate([[0], new])
    return np.concatenate([together[:-1, starts], np.add.reduceat(together[-1], starts)[None]])
