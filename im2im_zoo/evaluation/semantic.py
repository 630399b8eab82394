"""Metrics for masks and classes, over pixels: Dice (= F1), IoU, precision, recall, accuracy, of plain arrays."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError

DEFINITIONS: dict[str, str] = {
    "dice": (
        "Dice coefficient over pixels, 2 TP / (2 TP + FP + FN) (Dice 1945), the same as F1 over pixels. "
        "1 when both masks are empty."
    ),
    "iou": "Intersection over union over pixels, TP / (TP + FP + FN) (Jaccard 1912). 1 when both masks are empty.",
    "precision": (
        "TP / (TP + FP) over pixels: how much of the predicted foreground is right. "
        "When nothing is predicted: 1 if the target is empty too, else 0."
    ),
    "recall": (
        "TP / (TP + FN) over pixels: how much of the target's foreground is found. "
        "When the target is empty: 1 if nothing is predicted, else 0."
    ),
    "accuracy": "Share of pixels whose class is right, background included.",
}
CLASS_MEAN = (
    "Mean over the classes from 1 on (class 0 is background); a class that neither image holds is left out."
)


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Pixels of two masks that agree and differ; counts of disjoint parts of an image can be added."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: "PixelCounts") -> "PixelCounts":
        return PixelCounts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def empty(self) -> bool:
        """Whether neither mask has foreground."""
        return self.tp + self.fp + self.fn == 0

    def metrics(self, *, empty: float = 1.0) -> dict[str, float]:
        """Return dice, iou, precision and recall, each in [0, 1]; `empty` for all of them when both masks are empty."""
        if self.empty:
            return dict.fromkeys(("dice", "iou", "precision", "recall"), empty)
        return {
            "dice": 2 * self.tp / (2 * self.tp + self.fp + self.fn),
            "iou": self.tp / (self.tp + self.fp + self.fn),
            "precision": self.tp / (self.tp + self.fp) if self.tp + self.fp else 0.0,
            "recall": self.tp / (self.tp + self.fn) if self.tp + self.fn else 0.0,
        }


def count_pixels(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> PixelCounts:
    """Compare two masks of one shape; whatever is not zero is foreground.

    Raises:
        EvaluationError: the shapes differ.
    """
    if prediction.shape != target.shape:
        raise EvaluationError(
            f"prediction mask has shape {prediction.shape}, target {target.shape}: they must be the same pixel by pixel"
        )
    p, t = np.asarray(prediction, dtype=bool), np.asarray(target, dtype=bool)
    both, predicted, true = (int(np.count_nonzero(m)) for m in (p & t, p, t))
    return PixelCounts(tp=both, fp=predicted - both, fn=true - both, tn=t.size - predicted - true + both)


def dice(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> float:
    """Return the Dice coefficient of two masks, 2 TP / (2 TP + FP + FN) (Dice 1945; = F1 over pixels); 1 when both are empty."""
    return count_pixels(prediction, target).metrics()["dice"]


def confusion(
    prediction: NDArray[np.generic], target: NDArray[np.generic], classes: int
) -> NDArray[np.int64]:
    """Return the confusion matrix (classes, classes) of two maps of whole class numbers 0..classes-1: [target, prediction] -> pixels.

    Matrices of disjoint parts of an image can be added.

    Raises:
        EvaluationError: the shapes differ, or a class number lies outside.
    """
    if prediction.shape != target.shape:
        raise EvaluationError(
            f"prediction has shape {prediction.shape}, target {target.shape}: they must be the same pixel by pixel"
        )
    for name, array in (("prediction", prediction), ("target", target)):
        if array.size and not (array.min() >= 0 and array.max() < classes):
            raise EvaluationError(
                f"{name} holds classes from {array.min()} to {array.max()}, but there are {classes} classes "
                f"(0 to {classes - 1}): renumber the labels, or give the number of classes"
            )
    code = np.asarray(target, dtype=np.int64).ravel() * classes
    code += np.asarray(prediction, dtype=np.int64).ravel()
    return np.bincount(code, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_counts(matrix: NDArray[np.int64], index: int) -> PixelCounts:
    """Return the counts of one class against all others, from a confusion matrix."""
    tp = int(matrix[index, index])
    fp = int(matrix[:, index].sum()) - tp
    fn = int(matrix[index, :].sum()) - tp
    return PixelCounts(tp=tp, fp=fp, fn=fn, tn=int(matrix.sum()) - tp - fp - fn)


def class_metrics(matrix: NDArray[np.int64]) -> dict[int, dict[str, float]]:
    """Return dice, iou, precision and recall per class; NaN for a class that neither image holds."""
    return {k: class_counts(matrix, k).metrics(empty=math.nan) for k in range(len(matrix))}


def mean_class_metrics(metrics: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return means over the classes from 1 on (0 is background), without those that are NaN; 1 when all are."""
    means: dict[str, float] = {}
    for name in ("dice", "iou", "precision", "recall"):
        values = [f[name] for k, f in metrics.items() if k > 0 and not math.isnan(f[name])]
        means[name] = sum(values) / len(values) if values else 1.0
    return means


def accuracy(matrix: NDArray[np.int64]) -> float:
    """Return the share of pixels on the diagonal of a confusion matrix; NaN without pixels."""
    total = int(matrix.sum())
    return float(np.trace(matrix)) / total if total else math.nan
