"""Where the objects of a label image are: a box around each. Draws no patches."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_BLOCK_BYTES = 64 * 2**20


def boxes_of(file: Path) -> NDArray[np.int64]:
    """The box around each object, (object, 2, axis): its first voxel along each space axis, and the one behind its last.

    Args:
        file: `.npy` of labels, axes channel, (z,) y, x, of which the first channel is read, in parts. An object is what has one
            number above 0, in however many pieces.
    """
    labels = np.load(file, mmap_mode="r", allow_pickle=False)[0]
    step = max(_BLOCK_BYTES // max(labels[:1].nbytes, 1), 1)
    boxes: dict[float, NDArray[np.int64]] = {}
    for start in range(0, len(labels), step):
        part = np.asarray(labels[start : start + step])
        numbers, compact = np.unique(part, return_inverse=True)
        for number, place in zip(numbers, ndimage.find_objects(compact.reshape(part.shape) + 1), strict=True):
            box = np.array([[along.start for along in place], [along.stop for along in place]])
            box[:, 0] += start
            before = boxes.get(number, box)
            boxes[number] = np.stack([np.minimum(before[0], box[0]), np.maximum(before[1], box[1])])
    found = [box for number, box in sorted(boxes.items()) if number > 0]
    return np.array(found, np.int64).reshape(-1, 2, labels.ndim)
