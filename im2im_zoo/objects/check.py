"""Check that an image is a label image, before its objects are measured."""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError

# Side of the part of the image that is looked at, in pixels.
_SIDE = 1024
# Fewer values may be classes, which are taken as objects.
_FEW_VALUES = 16
# A picture has more connected regions of one value than these for each value, where more than this part of the pixels next to each
# other differ. In label images there is about one, and less than a tenth differs.
_PICTURES = ((2.0, 0.5), (20.0, 0.15))
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
    regions = _count_regions(window) / len(values)
    if any(regions > most and different > part for most, part in _PICTURES):
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


def _count_regions(window: NDArray[Any]) -> int:
    """Return the number of connected regions of one value, without the background."""
    from skimage.measure import label

    known, numbers = np.unique(window, return_inverse=True)
    places = np.flatnonzero(known == 0)
    background = int(places[0]) if len(places) else -1
    _, count = label(  # type: ignore[no-untyped-call]
        numbers.reshape(window.shape), background=background, return_num=True
    )
    return int(count)
