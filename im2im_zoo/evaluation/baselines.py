"""Simple predictions that a trained network should beat: Otsu's threshold, a watershed, a line, a Gaussian filter.

Each returns a DataArray with the axes of its input; `attrs["baseline"]` describes the method in words. Those that look at
the target (`linear_fit`, `best_gaussian`) are upper bounds of what such a method can reach.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.alignment import align
from im2im_zoo.evaluation.regression import pair_sums

SIGMAS: tuple[float, ...] = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


def otsu_mask(image: xr.DataArray) -> xr.DataArray:
    """Return the foreground, where the image exceeds Otsu's threshold (Otsu 1979), found per channel and image.

    Args:
        image: any numeric dtype and axes.
    Returns:
        uint8, 0 and 1, same axes. A constant image has no foreground.
    Raises:
        EvaluationError: values that are not finite.
    """
    from skimage.filters import threshold_otsu

    mask = np.zeros(image.shape, dtype=np.uint8)
    levels: list[float] = []
    for place in _spaces(image):
        values = _values(image, place)
        levels.append(float(threshold_otsu(values)))  # type: ignore[no-untyped-call]
        mask[place] = values > levels[-1]
    shown = ", ".join(f"{level:g}" for level in levels[:4]) + (", ..." if len(levels) > 4 else "")
    return _like(image, mask, f"Otsu threshold ({shown})")


def otsu_instances(image: xr.DataArray, *, smallest: int = 0) -> xr.DataArray:
    """Return the connected components of the Otsu mask, numbered from 1 in each channel and image.

    Args:
        smallest: voxels; smaller components become background.
    Returns:
        int32 labels, same axes; components touch through faces, edges or corners.
    """
    from scipy import ndimage

    mask = otsu_mask(image)
    labels = np.zeros(mask.shape, dtype=np.int32)
    for place in _spaces(image):
        part = mask.to_numpy()[place]
        found, count = ndimage.label(part, structure=np.ones((3,) * part.ndim))
        keep = np.bincount(found.ravel(), minlength=count + 1) >= smallest
        keep[0] = False
        labels[place] = np.where(keep, np.cumsum(keep), 0)[found]
    note = f"{mask.attrs['baseline']}, connected components"
    return _like(image, labels, note + (f" of {smallest} voxels or more" if smallest else ""))


def watershed_instances(
    image: xr.DataArray,
    *,
    smoothing: float = 1.0,
    level: float = 1.0,
    separation: int = 4,
    smallest: int = 0,
    spacing: Sequence[float] | None = None,
) -> xr.DataArray:
    """Segment objects by threshold and watershed: a basin around each peak of the distance to the background (Beucher 1979).

    Args:
        smoothing: sigma of a Gaussian filter on the image, and half of it on the distances, in units of `spacing`.
        level: the threshold as a multiple of Otsu's.
        separation: voxels that two peaks are apart at least.
        smallest: voxels; smaller objects become background.
        spacing: of voxels along the space axes; default: 1.
    Returns:
        int32 labels, same axes, numbered in each channel and image.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    labels = np.zeros(image.shape, dtype=np.int32)
    for place in _spaces(image):
        values = _values(image, place).astype(np.float64)
        steps = np.ones(values.ndim) if spacing is None else np.asarray(spacing)
        smooth = ndimage.gaussian_filter(values, smoothing / steps)
        mask = smooth > level * threshold_otsu(smooth)  # type: ignore[no-untyped-call]
        depth = ndimage.gaussian_filter(
            ndimage.distance_transform_edt(mask, sampling=steps), smoothing / 2 / steps
        )
        peaks = peak_local_max(  # type: ignore[no-untyped-call]
            depth, min_distance=separation, labels=mask.astype(int), exclude_border=False
        )
        markers = np.zeros(values.shape, dtype=np.int32)
        markers[tuple(peaks.T)] = range(1, len(peaks) + 1)
        found = watershed(-depth, markers, mask=mask)  # type: ignore[no-untyped-call]
        keep = np.bincount(found.ravel(), minlength=len(peaks) + 1) >= smallest
        keep[0] = False
        labels[place] = np.where(keep, np.cumsum(keep), 0)[found]
    return _like(
        image,
        labels,
        f"watershed of distances within {level:g} times Otsu's threshold, smoothed by {smoothing:g}",
    )


def linear_fit(image: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    """Return a x + b with the a and b that minimise the squared error against the target, per channel and image.

    Returns:
        float32, axes of the target. No better linear map of intensities exists. A constant input gives the target's mean.
    Raises:
        EvaluationError: image and target do not align.
    """
    pair = align(image, target)
    fitted = np.zeros(pair.target.shape, dtype=np.float32)
    lines: list[str] = []
    for place in _spaces(pair.target):
        x, t = _values(pair.prediction, place), _values(pair.target, place)
        sums = pair_sums(x, t)
        slope = sums.product / sums.spread_p if sums.low_p < sums.high_p else 0.0
        offset = sums.mean_t - slope * sums.mean_p
        fitted[place] = slope * x.astype(np.float64) + offset
        lines.append(f"{slope:.4g} x {'-' if offset < 0 else '+'} {abs(offset):.4g}")
    shown = "; ".join(lines[:4]) + ("; ..." if len(lines) > 4 else "")
    return _like(pair.target, fitted, f"best straight line through the input ({shown})")


def best_gaussian(
    image: xr.DataArray, target: xr.DataArray, sigmas: Sequence[float] = SIGMAS, *, fitted: bool = False
) -> xr.DataArray:
    """Return the input after a Gaussian filter over the space axes, with the sigma of the least mean squared error.

    Args:
        sigmas: candidates in voxels, the same along every space axis; the unfiltered input is no candidate.
        fitted: apply `linear_fit` to the filtered image before the comparison, for targets with other intensities.
    Returns:
        float32, axes of the target; `attrs["sigma"]` is the sigma taken, one for the whole image.
    Raises:
        EvaluationError: image and target do not align; no sigma, or one that is not above 0.
    """
    from scipy.ndimage import gaussian_filter

    if not sigmas or min(sigmas) <= 0:
        raise EvaluationError(f"sigmas {tuple(sigmas)}: give at least one, all above 0 voxels")
    pair = align(image, target)
    source = np.asarray(pair.prediction.to_numpy(), dtype=np.float32)
    truth = pair.target.to_numpy()
    space = [axis for axis, name in enumerate(pair.target.dims) if name in SPACE]
    best, best_sigma, least = source, math.nan, math.inf
    for sigma in sigmas:
        smooth = gaussian_filter(source, sigma=sigma, axes=space)
        if fitted:
            smooth = linear_fit(pair.prediction.copy(data=smooth), pair.target).to_numpy()
        error = pair_sums(smooth, truth).mse()
        if math.isnan(best_sigma) or error < least:
            best, best_sigma, least = smooth, sigma, error
    tried = ", ".join(f"{s:g}" for s in sigmas)
    result = _like(
        pair.target, best, f"Gaussian filter, sigma {best_sigma:g} voxels (least squared error of {tried})"
    )
    result.attrs["sigma"] = best_sigma
    return result


def _spaces(image: xr.DataArray) -> Iterator[tuple[Any, ...]]:
    """Yield numpy indices of each channel of each image: whole along space axes, one place along the others."""
    yield from itertools.product(
        *([slice(None)] if d in SPACE else range(image.sizes[d]) for d in image.dims)
    )


def _values(image: xr.DataArray, place: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    values = image[place].to_numpy()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise EvaluationError("image: NaN or infinite values; replace them or crop them away")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values


def _like(image: xr.DataArray, values: np.ndarray[Any, Any], note: str) -> xr.DataArray:
    return xr.DataArray(values, dims=image.dims, coords=image.coords, attrs={**image.attrs, "baseline": note})
