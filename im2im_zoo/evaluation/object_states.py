"""States of objects (matched, false, missed, split, merged), and images of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.evaluation import instance
from im2im_zoo.evaluation.contingency import Overlaps

# States of a pixel. A split object counts as split even if one of its parts is matched.
FALSE, MISSED, MATCHED, SPLIT, MERGED = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True, eq=False)
class ObjectStates:
    """States of the objects of an image, by sorted labels.

    Attributes:
        matched_t, matched_p: true and predicted objects matched at IoU 0.5.
        split_t, split_p: true objects that are split, and predicted ones that they are split into.
        merged_t, merged_p: true objects that are merged, and predicted ones that they are merged in.
        counts: matched pairs, false and missed objects, splits, merges.
    """

    matched_t: NDArray[np.int64]
    matched_p: NDArray[np.int64]
    split_t: NDArray[np.int64]
    split_p: NDArray[np.int64]
    merged_t: NDArray[np.int64]
    merged_p: NDArray[np.int64]
    counts: tuple[int, int, int, int, int]

    def paint(self, prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the state of each pixel, 0 for the background; wrong objects are painted over matched ones."""
        states = np.where(target > 0, np.uint8(MISSED), np.uint8(0))
        states[np.isin(target, self.matched_t)] = MATCHED
        states[(prediction > 0) & ~np.isin(prediction, self.matched_p)] = FALSE
        states[np.isin(prediction, self.matched_p)] = MATCHED
        states[np.isin(target, self.split_t) | np.isin(prediction, self.split_p)] = SPLIT
        states[np.isin(target, self.merged_t) | np.isin(prediction, self.merged_p)] = MERGED
        return states

    def count_wrong(self, prediction: NDArray[Any], target: NDArray[Any]) -> int:
        """Return the number of objects in a part of the image that are not matched."""
        states = self.paint(prediction, target)
        bad = (states > 0) & (states != MATCHED)
        return len(np.unique(prediction[bad])) + len(np.unique(target[bad]))


def object_states(found: Overlaps) -> ObjectStates:
    """Return the states of the objects of two label images."""
    matching, split, merged = instance.match(found, 0.5), instance.splits(found), instance.merges(found)
    return ObjectStates(
        matched_t=np.unique(matching.pairs[:, 0]),
        matched_p=np.unique(matching.pairs[:, 1]),
        split_t=split.wholes,
        split_p=np.unique(split.pairs[:, 1]),
        merged_t=np.unique(merged.pairs[:, 1]),
        merged_p=merged.wholes,
        counts=(matching.tp, matching.fp, matching.fn, len(split.wholes), len(merged.wholes)),
    )


def find_borders(prediction: NDArray[Any], target: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels where an object, predicted or true, touches another object of the same image."""
    edge = np.zeros(prediction.shape, dtype=bool)
    for labels in (prediction, target):
        for axis in range(labels.ndim):
            one = tuple(slice(1, None) if a == axis else slice(None) for a in range(labels.ndim))
            other = tuple(slice(None, -1) if a == axis else slice(None) for a in range(labels.ndim))
            edge[one] |= (labels[one] != labels[other]) & (labels[one] > 0) & (labels[other] > 0)
    return edge
