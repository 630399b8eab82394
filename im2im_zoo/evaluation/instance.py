"""Figures for instance labels: AP, F1, precision, recall and counts at IoU thresholds. Arrays only: no axes, no files.

Overlaps are kept sparse: only pairs of objects that touch each other cost anything, so that an image of 10^5 objects is
compared in seconds.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.errors import EvaluationError

THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
_CHUNK = 1 << 22

DEFINITIONS: dict[str, str] = {
    "ap": (
        "Average precision at an IoU threshold as in StarDist and the 2018 Data Science Bowl, TP / (TP + FP + FN) over "
        "objects, each predicted object matched to at most one true object with IoU ≥ threshold. "
        "1 when neither image has an object. Mean per image, never pooled."
    ),
    "mean_ap": "Mean of AP over the IoU thresholds 0.50, 0.55 ... 0.95.",
    "f1": "F1 over objects at an IoU threshold, 2 TP / (2 TP + FP + FN).",
    "precision": "TP / (TP + FP) over objects at an IoU threshold.",
    "recall": "TP / (TP + FN) over objects at an IoU threshold.",
    "matched_iou": "Mean IoU of the matched pairs of objects; undefined without any.",
    "panoptic_quality": "Sum of the IoU of matched pairs / (TP + FP/2 + FN/2) (Kirillov et al. 2019).",
    "tp": "Objects matched.",
    "fp": "Predicted objects without a match.",
    "fn": "True objects without a match.",
    "objects_predicted": "Objects in the prediction.",
    "objects_true": "Objects in the target.",
    "foreground_dice": "Dice over pixels of any object against background (= F1 over pixels).",
    "foreground_iou": "IoU over pixels of any object against background.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Pairs of objects that share pixels, and the objects' ids.

    Attributes:
        ids_p, ids_t: label of each predicted and true object, sorted, without 0.
        rows, columns: (pairs,) index of the true and of the predicted object of each pair.
        iou: (pairs,) intersection over union, in (0, 1].
        shared, total_p, total_t: pixels in both foregrounds, and in each.
    """

    ids_p: NDArray[np.int64]
    ids_t: NDArray[np.int64]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    iou: NDArray[np.float64]
    shared: int
    total_p: int
    total_t: int


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """The one-to-one matching of objects at one IoU threshold.

    Attributes:
        tp, fp, fn: objects.
        pairs: (tp, 2) labels of matched objects, true then predicted.
        iou: (tp,) of each pair.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    pairs: NDArray[np.int64]
    iou: NDArray[np.float64]

    @property
    def ap(self) -> float:
        """TP / (TP + FP + FN); 1 when there are no objects at all."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else 1.0

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN); 1 when there are no objects at all."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0

    @property
    def precision(self) -> float:
        """TP / (TP + FP); when nothing is predicted, 1 if there is no true object, else 0."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else float(self.fn == 0)

    @property
    def recall(self) -> float:
        """TP / (TP + FN); when there is no true object, 1 if nothing is predicted, else 0."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else float(self.fp == 0)

    @property
    def matched_iou(self) -> float:
        """Mean IoU of the matched pairs (Kirillov's segmentation quality); NaN without any."""
        return float(self.iou.mean()) if self.tp else math.nan

    @property
    def panoptic_quality(self) -> float:
        """Sum of matched IoU / (TP + FP/2 + FN/2) (Kirillov et al. 2019); 1 when there are no objects at all."""
        total = self.tp + self.fp / 2 + self.fn / 2
        return float(self.iou.sum()) / total if total else 1.0


def overlaps(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> Overlaps:
    """Objects of two label images (one shape, whole numbers, 0 = background) and the IoU of those that touch.

    Time and memory grow with pixels plus touching pairs, never with objects times objects.

    Raises:
        EvaluationError: the shapes differ, or labels that are negative or not whole numbers.
    """
    if prediction.shape != target.shape:
        raise EvaluationError(
            f"prediction labels have shape {prediction.shape}, target {target.shape}: they must be the same"
        )
    p, ids_p, area_p = _compact(as_labels(prediction, "prediction"))
    t, ids_t, area_t = _compact(as_labels(target, "target"))
    common = _joint_counts(t, p, (len(area_t), len(area_p)))
    rows, columns, shared = common.row.astype(np.int64), common.col.astype(np.int64), common.data
    union = area_t[rows] + area_p[columns] - shared
    return Overlaps(
        ids_p=ids_p,
        ids_t=ids_t,
        rows=rows,
        columns=columns,
        iou=shared / union,
        shared=int(shared.sum()),
        total_p=int(area_p.sum()),
        total_t=int(area_t.sum()),
    )


def match(found: Overlaps, threshold: float = 0.5) -> Matching:
    """Match objects one to one where IoU >= `threshold`: as many pairs as can be, and of those the largest sum of IoU.

    Above 0.5 an object has at most one such partner; where there are several (at 0.5 and below), the optimum is found
    by a sparse assignment.

    Args:
        threshold: in (0, 1].
    Raises:
        EvaluationError: a threshold outside.
    """
    if not 0 < threshold <= 1:
        raise EvaluationError(f"IoU threshold {threshold}: give one above 0 and at most 1")
    good = found.iou >= threshold
    rows, columns, iou = found.rows[good], found.columns[good], found.iou[good]
    degree_r = np.bincount(rows, minlength=len(found.ids_t))
    degree_c = np.bincount(columns, minlength=len(found.ids_p))
    chosen = (degree_r[rows] == 1) & (degree_c[columns] == 1)
    open_pairs = np.flatnonzero(~chosen)
    if len(open_pairs):
        chosen[open_pairs[_assign(rows[open_pairs], columns[open_pairs], iou[open_pairs])]] = True
    pairs = np.stack([found.ids_t[rows[chosen]], found.ids_p[columns[chosen]]], axis=1)
    tp = len(pairs)
    return Matching(threshold, tp, len(found.ids_p) - tp, len(found.ids_t) - tp, pairs, iou[chosen])


def average_precision(
    prediction: NDArray[np.generic],
    target: NDArray[np.generic],
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[float, float]:
    """AP = TP / (TP + FP + FN) of one image at each IoU threshold (StarDist, Schmidt et al. 2018; DSB 2018).

    Args:
        prediction, target: label images of one shape, whole numbers, 0 = background.
    Returns:
        threshold -> AP in [0, 1]; 1 when neither has an object.
    """
    found = overlaps(prediction, target)
    return {threshold: match(found, threshold).ap for threshold in thresholds}


def as_labels(labels: NDArray[Any], name: str) -> NDArray[Any]:
    """Labels as whole numbers, not negative.

    Raises:
        EvaluationError: fractions, negative numbers, NaN or infinity; `name` says of what.
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


def _compact(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Flat labels renumbered to 0..n without gaps, the labels 1..n had, and the pixels of each."""
    flat = labels.ravel()
    top = int(flat.max()) if flat.size else 0
    if top < 2 * flat.size + (1 << 16):  # counting beats sorting unless labels are huge and scattered
        areas = np.zeros(top + 1, dtype=np.int64)
        for part in _parts(flat.size):
            areas += np.bincount(flat[part].astype(np.int64), minlength=top + 1)
        ids = np.flatnonzero(areas[1:]) + 1
        renumber = np.zeros(top + 1, dtype=np.int32)
        renumber[ids] = np.arange(len(ids)) + 1
        return renumber[flat.astype(np.intp)], ids.astype(np.int64), areas[ids]
    ids, inverse, areas = np.unique(flat, return_inverse=True, return_counts=True)
    inverse = inverse.astype(np.int32)
    if ids[0] == 0:
        return inverse, ids[1:].astype(np.int64), areas[1:].astype(np.int64)
    return inverse + 1, ids.astype(np.int64), areas.astype(np.int64)


def _joint_counts(t: NDArray[Any], p: NDArray[Any], shape: tuple[int, int]) -> Any:
    """Shared pixels of every touching pair of compact labels, as a sparse (true, predicted) COO array."""
    from scipy.sparse import coo_array

    total = coo_array(shape, dtype=np.int64).tocsr()
    for part in _parts(t.size):
        both = (t[part] > 0) & (p[part] > 0)
        where = (t[part][both] - 1, p[part][both] - 1)
        total = total + coo_array((np.ones(len(where[0]), dtype=np.int64), where), shape=shape).tocsr()
    return total.tocoo()


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Which of the pairs make the best one-to-one assignment: first the number of pairs, then their summed IoU.

    A sparse assignment must give every row a column, so each row gets a column of its own that stands for "no match";
    a pair costs less than that by 1 plus an IoU share so small that all of them together stay below 1.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    row_ids, r = np.unique(rows, return_inverse=True)
    column_ids, c = np.unique(columns, return_inverse=True)
    n, m = len(row_ids), len(column_ids)
    cost = np.concatenate([1 - iou / (2 * n), np.full(n, 2.0)])
    graph = coo_array(
        (cost, (np.concatenate([r, np.arange(n)]), np.concatenate([c, m + np.arange(n)]))),
        shape=(n, m + n),
    ).tocsr()
    matched_rows, matched_columns = min_weight_full_bipartite_matching(graph)
    partner = np.full(n, -1, dtype=np.int64)
    partner[matched_rows] = matched_columns
    return np.flatnonzero(partner[r] == c)


def _parts(size: int) -> Iterator[slice]:
    for start in range(0, size, _CHUNK):
        yield slice(start, start + _CHUNK)
