"""Check that an image is a label image, before its objects are measured."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError

# Side of the part of the image that is looked at, in pixels.
_SIDE = 1024
# A picture has more values than these, and more than this part of its neighbouring pixels differ.
_FEW_VALUES, _MOST_DIFFERENT = 16, 0.5
# Or its values are scattered: regions of one value for each value, and pixels of a region.
_MANY_REGIONS, _SMALL_REGION = 20, 10.0
_MAP = "for a probability map add --threshold, above which its values are objects (0.5)"


def check_labels(labels: xr.DataArray) -> None:
    """Refuse an image that is no label image, such as a photograph or a probability map; only a part in the middle is read.

    In a label image, pixels next to each other mostly have the same value; numbers of any type are labels if they are whole.

    Raises:
        EvaluationError: the image is not a label image; the message says what to do.
    """
    window = _middle(labels)
    if window.dtype.kind not in "iufb":
        return
    if window.dtype.kind == "f" and not np.array_equal(window, np.floor(window)):
        low, high = float(np.nanmin(window)), float(np.nanmax(window))
        raise EvaluationError(
            f"this is no label image: labels are whole numbers, but its values are fractions from {low:.4g} to {high:.4g}; {_MAP}"
        )
    values = np.unique(window[window != 0])
    if len(values) <= _FEW_VALUES:
        return
    different = _different_neighbours(window)
    regions, size = _regions(window)
    if different > _MOST_DIFFERENT or (regions > _MANY_REGIONS * len(values) and size < _SMALL_REGION):
        colours = ", and it has colours" if labels.sizes.get("channel") in (3, 4) else ""
        raise EvaluationError(
            f"this is no label image but a picture{colours}: {different:.0%} of the pixels next to each other differ (of {len(values)} "
            f"values), and objects have one value each; give the labels of it, or predict them with a package; {_MAP}"
        )


def _middle(labels: xr.DataArray) -> NDArray[Any]:
    """Return the middle of the plane in the middle of the other axes."""
    key = {
        a: slice(max(0, n // 2 - _SIDE // 2), max(0, n // 2 - _SIDE // 2) + _SIDE)
        if a in ("y", "x")
        else n // 2
        for a, n in labels.sizes.items()
    }
    window: NDArray[Any] = labels.isel(key).to_numpy()
    return window


def _different_neighbours(window: NDArray[Any]) -> float:
    """Return the part of pixels next to each other that differ, where neither is background."""
    pairs = different = 0
    for axis in range(window.ndim):
        one, two = window.swapaxes(0, axis)[:-1], window.swapaxes(0, axis)[1:]
        both = (one != 0) & (two != 0)
        pairs += int(np.count_nonzero(both))
        different += int(np.count_nonzero(both & (one != two)))
    return different / pairs if pairs else 0.0


def _regions(window: NDArray[Any]) -> tuple[int, float]:
    """Return the number of connected regions of one value without the background, and their mean size in pixels."""
    from skimage.measure import label

    _, numbers = np.unique(window, return_inverse=True)
    background = int(np.searchsorted(np.unique(window), 0)) if (window == 0).any() else -1
    _, count = label(numbers.reshape(window.shape), background=background, return_num=True)  # type: ignore[no-untyped-call]
    return int(count), float(np.count_nonzero(window) / max(1, count))
