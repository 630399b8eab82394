"""Metrics of label images in memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.evaluation.contingency import overlaps
from im2im_zoo.evaluation.instance import THRESHOLDS
from im2im_zoo.evaluation.instance_evaluation import metrics_of, sums_of


def instance_metrics(
    prediction: NDArray[np.generic], target: NDArray[np.generic], thresholds: Sequence[float] = (0.5,)
) -> dict[str, float]:
    """The metrics of two label images, as `evaluate` gives them."""
    return metrics_of(sums_of(overlaps(prediction, target), thresholds))


def average_precision(
    prediction: NDArray[np.generic], target: NDArray[np.generic], thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """AP at each threshold."""
    metrics = instance_metrics(prediction, target, thresholds)
    return {threshold: metrics[f"ap@{threshold:.2f}"] for threshold in thresholds}
