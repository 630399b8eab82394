"""Metrics for instance labels: AP, F1, panoptic quality, aggregated Jaccard, splits and merges, from the overlaps that `contingency` counts."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.contingency import Overlaps

THRESHOLDS: tuple[float, ...] = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
# A split or a merge counts only if the parts other than the largest fill at least this share of the whole object.
_MIN_SHARE = 0.1

DEFINITIONS: dict[str, str] = {
    "ap": (
        "Average precision at an IoU threshold as in StarDist and the 2018 Data Science Bowl, TP / (TP + FP + FN) over "
        "objects, each predicted object matched to at most one true object with IoU ≥ threshold. "
        "1 when neither image has an object. Mean per image; `pooled_ap` is of the counts of all images."
    ),
    "mean_ap": "Mean of AP over the IoU thresholds 0.50, 0.55 ... 0.95.",
    "f1": "F1 over objects at an IoU threshold, 2 TP / (2 TP + FP + FN): the recognition quality RQ of Kirillov et al. 2019.",
    "precision": "TP / (TP + FP) over objects at an IoU threshold.",
    "recall": "TP / (TP + FN) over objects at an IoU threshold.",
    "matched_iou": "Mean IoU of the matched pairs of objects, the segmentation quality SQ; undefined without any.",
    "panoptic_quality": "PQ = SQ x RQ, the sum of the IoU of matched pairs / (TP + FP/2 + FN/2) (Kirillov et al. 2019).",
    "aggregated_jaccard": (
        "AJI (Kumar et al. 2017): each true object with the predicted one of the largest IoU (of equals, the lowest label); voxels "
        "of their intersections / voxels of their unions, and of true objects without any and predicted ones that were not taken. "
        "1 when neither image has an object."
    ),
    "splits": (
        "True objects in which more than half of each of two or more predicted objects lies, which without the largest fill "
        "at least a tenth of it."
    ),
    "merges": (
        "Predicted objects in which more than half of each of two or more true objects lies, which without the largest fill "
        "at least a tenth of it."
    ),
    "tp": "Objects matched.",
    "fp": "Predicted objects without a match.",
    "fn": "True objects without a match.",
    "objects_predicted": "Objects in the prediction.",
    "objects_true": "Objects in the target.",
    "foreground_dice": "Dice over pixels of any object against background (= F1 over pixels).",
    "foreground_iou": "IoU over pixels of any object against background.",
}


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """One-to-one matching of objects at one IoU threshold.

    Attributes:
        tp, fp, fn: numbers of objects.
        pairs: (tp, 2) labels of matched objects, true then predicted.
        iou: (tp,) of each pair.
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    pairs: NDArray[np.int64]
    iou: NDArray[np.float64]


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


def aggregated_jaccard_sums(found: Overlaps) -> tuple[int, int]:
    """Return intersection and union of the aggregated Jaccard index (Kumar et al. 2017, doi:10.1109/TMI.2017.2677499); see `DEFINITIONS`."""
    order = np.lexsort((found.columns, -found.iou, found.rows))
    first = np.unique(found.rows[order], return_index=True)[1]
    best = order[first]
    rows, columns = found.rows[best], found.columns[best]
    common = int(found.common[best].sum())
    union = int(found.areas_t[rows].sum() + found.areas_p[columns].sum()) - common
    union += found.total_t - int(found.areas_t[rows].sum())
    return common, union + found.total_p - int(found.areas_p[np.unique(columns)].sum())


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Objects of one image that contain several objects of the other.

    Attributes:
        wholes: (n,) labels of the containing objects.
        pairs: (k, 2) labels of a containing object and of an object inside it.
    """

    wholes: NDArray[np.int64]
    pairs: NDArray[np.int64]


def splits(found: Overlaps) -> Parts:
    """Return the true objects that are split into several predicted ones; see `DEFINITIONS`."""
    within = 2 * found.common > found.areas_p[found.columns]
    return _parts(found.rows, found.columns, within, found, (found.ids_t, found.ids_p), found.areas_t)


def merges(found: Overlaps) -> Parts:
    """Return the predicted objects that merge several true ones; see `DEFINITIONS`."""
    within = 2 * found.common > found.areas_t[found.rows]
    return _parts(found.columns, found.rows, within, found, (found.ids_p, found.ids_t), found.areas_p)


def _parts(
    wholes: NDArray[np.int64],
    parts: NDArray[np.int64],
    within: NDArray[np.bool_],
    found: Overlaps,
    ids: tuple[NDArray[np.int64], NDArray[np.int64]],
    areas: NDArray[np.int64],
) -> Parts:
    """Return the `wholes` that contain at least two of `parts`; both are indices of overlapping pairs."""
    wholes, parts, common = wholes[within], parts[within], found.common[within]
    total, largest = np.zeros(len(areas), np.int64), np.zeros(len(areas), np.int64)
    np.add.at(total, wholes, common)
    np.maximum.at(largest, wholes, common)
    several = np.bincount(wholes, minlength=len(areas)) >= 2
    enough = several & (total - largest >= _MIN_SHARE * areas)
    pairs = np.stack([ids[0][wholes], ids[1][parts]], axis=1)[enough[wholes]]
    return Parts(ids[0][enough], pairs)


def _assign(
    rows: NDArray[np.int64], columns: NDArray[np.int64], iou: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return the indices of the pairs in the best one-to-one assignment: first the number of pairs, then their summed IoU.

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
