"""Where the objects of a label image are: a box around each. Draws no patches."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.data.cache.stored import Reader, Stored

_BLOCK_BYTES = 64 * 2**20


def boxes_of(image: Stored, shape: Sequence[int], *, block_bytes: int = _BLOCK_BYTES) -> NDArray[np.int64]:
    """The box around each object, (object, 2, axis): its first voxel along each space axis, and the one behind its last.

    Args:
        image: labels, of which the first channel is read, in parts. An object is what has one number above 0, in however many
            pieces.
        shape: its voxels along (z,) y, x.
        block_bytes: about how large a part is, at least one row; the boxes are the same for any size.
    """
    reader = Reader()
    step = max(block_bytes // max(4 * math.prod(shape[1:]), 1), 1)
    boxes: dict[float, NDArray[np.int64]] = {}
    for start in range(0, shape[0], step):
        size = min(step, shape[0] - start)
        part = reader.read(image, (start, *(0 for _ in shape[1:])), (size, *shape[1:]))[0]
        numbers, compact = np.unique(part, return_inverse=True)
        for number, place in zip(numbers, ndimage.find_objects(compact.reshape(part.shape) + 1), strict=True):
            box = np.array([[along.start for along in place], [along.stop for along in place]])
            box[:, 0] += start
            before = boxes.get(number, box)
            boxes[number] = np.stack([np.minimum(before[0], box[0]), np.maximum(before[1], box[1])])
    found = [box for number, box in sorted(boxes.items()) if number > 0]
    return np.array(found, np.int64).reshape(-1, 2, len(shape))
