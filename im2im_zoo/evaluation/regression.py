"""Metrics for predicted intensities: Pearson correlation, SSIM, PSNR, MSE, MAE, NRMSE, of plain arrays.

Sums are accumulated in float64 over slabs of the first axis, so an image costs little more than itself; sums of
disjoint parts of an image can be added (`PairSums.__add__`), for images that do not fit in memory.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError

_BLOCK_VOXELS = 1 << 21
SSIM_SIGMA = 1.5  # voxels; with truncation at 3.5 sigma the window of Wang et al. 2004: 11 wide
SSIM_WINDOW = 11

DEFINITIONS: dict[str, str] = {
    "pearson": (
        "Pearson's correlation over all voxels, cov(p, t) / (std(p) std(t)). 1 is ideal; blind to a linear change "
        "of intensity; undefined when either image is constant."
    ),
    "ssim": (
        "Structural similarity (Wang et al. 2004), mean over the image: Gaussian window, sigma 1.5, 11 voxels wide along "
        "every space axis (axes shorter than 11 are taken plane by plane), K1 0.01, K2 0.03, population covariance, "
        "a border of 5 voxels left out; L = the data range. 1 is ideal; undefined when the target is constant or no axis "
        "has 11 voxels."
    ),
    "psnr": "Peak signal-to-noise ratio in dB, 10 log10(L² / MSE); L = the data range. Infinite when there is no error.",
    "mse": "Mean squared error, mean((p - t)²), in squared intensity units. 0 is ideal.",
    "mae": "Mean absolute error, mean(|p - t|), in intensity units. 0 is ideal.",
    "nrmse": "Root of the mean squared error over the data range L, sqrt(MSE) / L. 0 is ideal.",
}


@dataclass(frozen=True, slots=True)
class PairSums:
    """Sums over voxel pairs (prediction p, target t) from which every metric but SSIM follows; parts can be added.

    Second moments are held about the mean (Chan, Golub & LeVeque 1983), so that a large offset costs no digits.
    """

    count: int = 0
    mean_p: float = 0.0
    mean_t: float = 0.0
    spread_p: float = 0.0  # sum((p - mean_p)²)
    spread_t: float = 0.0
    product: float = 0.0  # sum((p - mean_p)(t - mean_t))
    squared_error: float = 0.0
    absolute_error: float = 0.0
    low_p: float = math.inf
    high_p: float = -math.inf
    low_t: float = math.inf
    high_t: float = -math.inf

    def __add__(self, other: "PairSums") -> "PairSums":
        if not self.count or not other.count:
            return self if self.count else other
        n = self.count + other.count
        share = other.count / n
        step_p, step_t = other.mean_p - self.mean_p, other.mean_t - self.mean_t
        weight = self.count * share
        return PairSums(
            count=n,
            mean_p=self.mean_p + step_p * share,
            mean_t=self.mean_t + step_t * share,
            spread_p=self.spread_p + other.spread_p + step_p * step_p * weight,
            spread_t=self.spread_t + other.spread_t + step_t * step_t * weight,
            product=self.product + other.product + step_p * step_t * weight,
            squared_error=self.squared_error + other.squared_error,
            absolute_error=self.absolute_error + other.absolute_error,
            low_p=min(self.low_p, other.low_p),
            high_p=max(self.high_p, other.high_p),
            low_t=min(self.low_t, other.low_t),
            high_t=max(self.high_t, other.high_t),
        )

    @property
    def target_range(self) -> float:
        """Largest minus smallest value of the target."""
        return self.high_t - self.low_t

    def pearson(self) -> float:
        """Return cov(p, t) / (std(p) std(t)), in [-1, 1]; NaN when either image is constant."""
        if not self.count or self.low_p == self.high_p or self.low_t == self.high_t:
            return math.nan
        norm = math.sqrt(self.spread_p) * math.sqrt(self.spread_t)
        return max(-1.0, min(1.0, self.product / norm)) if norm > 0 else math.nan

    def mse(self) -> float:
        """Return mean((p - t)²); NaN without voxels."""
        return self.squared_error / self.count if self.count else math.nan

    def mae(self) -> float:
        """Return mean(|p - t|); NaN without voxels."""
        return self.absolute_error / self.count if self.count else math.nan

    def psnr(self, data_range: float | None = None) -> float:
        """Return 10 log10(L² / MSE) in dB, L = `data_range` or the target's range; inf at MSE 0, NaN when L is not above 0."""
        peak = self.target_range if data_range is None else data_range
        if not self.count or not peak > 0:
            return math.nan
        if self.squared_error == 0:
            return math.inf
        return 20 * math.log10(peak) - 10 * math.log10(self.mse())

    def nrmse(self, data_range: float | None = None) -> float:
        """Return sqrt(MSE) / L, L = `data_range` or the target's range; NaN when L is not above 0."""
        peak = self.target_range if data_range is None else data_range
        return math.sqrt(self.mse()) / peak if self.count and peak > 0 else math.nan


def pair_sums(
    prediction: NDArray[np.generic], target: NDArray[np.generic], *, block_voxels: int = _BLOCK_VOXELS
) -> PairSums:
    """Return the sums of two arrays of one shape (any dtype of real numbers, any number of axes).

    Args:
        prediction, target: the arrays.
        block_voxels: about how many voxels are in memory at once; the sums are the same for any number.

    Raises:
        EvaluationError: the shapes differ.
    """
    _same_shape(prediction, target)
    total = PairSums()
    for rows in _slabs(target.shape, block_voxels):
        p = np.asarray(prediction[rows], dtype=np.float64)
        t = np.asarray(target[rows], dtype=np.float64)
        if p.size:
            total += _slab_sums(p, t)
    return total


def ssim(
    prediction: NDArray[np.generic],
    target: NDArray[np.generic],
    *,
    data_range: float | None = None,
    block_voxels: int = _BLOCK_VOXELS,
) -> float:
    """Return the mean structural similarity (Wang, Bovik, Sheikh & Simoncelli 2004), with that paper's settings.

    SSIM = (2 mp mt + C1)(2 vpt + C2) / ((mp² + mt² + C1)(vp + vt + C2)) at every voxel, means and (co)variances
    under a Gaussian window of sigma 1.5 voxels cut at 11 voxels along every axis, population covariance,
    C1 = (0.01 L)², C2 = (0.03 L)²; then the mean over all voxels at least 5 from the border. The same as
    `skimage.metrics.structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)`, in
    bounded memory.

    Args:
        prediction, target: one channel of one image, space axes only, of one shape. Along axes shorter than 11 voxels
            (a few z planes) no window fits: each plane is taken by itself, and the mean is over planes.
        data_range: L; default max(target) - min(target).
        block_voxels: about how many voxels are in memory at once.
    Returns:
        In [-1, 1]; NaN when no axis has 11 voxels or L is not above 0.
    """
    _same_shape(prediction, target)
    if target.size == 0:
        return math.nan
    span = float(target.max()) - float(target.min()) if data_range is None else data_range
    long = [axis for axis, size in enumerate(target.shape) if size >= SSIM_WINDOW]
    if not long or not span > 0:
        return math.nan
    short = [axis for axis in range(target.ndim) if axis not in long]
    p, t = (np.transpose(a, short + long) for a in (prediction, target))
    lead = t.shape[: len(short)]
    planes = [_ssim_of_planes(p[i], t[i], span, block_voxels) for i in np.ndindex(*lead)]
    return float(np.mean(planes))


def _ssim_of_planes(
    p: NDArray[np.generic], t: NDArray[np.generic], data_range: float, block_voxels: int
) -> float:
    """Return the mean SSIM of one image whose axes are all long enough, block by block."""
    radius = SSIM_WINDOW // 2
    total, count = 0.0, 0
    for block in _overlapping_blocks(t.shape, radius, block_voxels):
        similarity = _ssim_map(
            np.asarray(p[block], dtype=np.float64), np.asarray(t[block], dtype=np.float64), data_range
        )
        inner = similarity[(slice(radius, -radius),) * similarity.ndim]
        total += float(inner.sum())
        count += inner.size
    return total / count


def _ssim_map(p: NDArray[np.float64], t: NDArray[np.float64], data_range: float) -> NDArray[np.float64]:
    from skimage.metrics import structural_similarity

    _, similarity = structural_similarity(  # type: ignore[no-untyped-call]
        p,
        t,
        data_range=data_range,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        full=True,
    )
    return np.asarray(similarity, dtype=np.float64)


def _slab_sums(p: NDArray[np.float64], t: NDArray[np.float64]) -> PairSums:
    mean_p, mean_t = float(p.mean()), float(t.mean())
    centred_p, centred_t, error = (p - mean_p).ravel(), (t - mean_t).ravel(), (p - t).ravel()
    return PairSums(
        count=p.size,
        mean_p=mean_p,
        mean_t=mean_t,
        spread_p=float(centred_p @ centred_p),
        spread_t=float(centred_t @ centred_t),
        product=float(centred_p @ centred_t),
        squared_error=float(error @ error),
        absolute_error=float(np.abs(error).sum()),
        low_p=float(p.min()),
        high_p=float(p.max()),
        low_t=float(t.min()),
        high_t=float(t.max()),
    )


def _slabs(shape: tuple[int, ...], block_voxels: int) -> Iterator[tuple[slice, ...]]:
    """Yield slices of the first axis, each about `block_voxels` large."""
    if not shape:
        yield ()
        return
    rows = max(1, block_voxels // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], rows):
        yield (slice(start, start + rows),)


def _overlapping_blocks(
    shape: tuple[int, ...], margin: int, block_voxels: int
) -> Iterator[tuple[slice, ...]]:
    """Yield blocks of about `block_voxels` whose parts `margin` inside are disjoint and cover all that lies `margin` inside."""
    edge = max(4 * margin, round(block_voxels ** (1 / len(shape))))
    spans = [
        [
            slice(start - margin, min(start + edge, size - margin) + margin)
            for start in range(margin, size - margin, edge)
        ]
        for size in shape
    ]
    yield from itertools.product(*spans)


def _same_shape(prediction: NDArray[np.generic], target: NDArray[np.generic]) -> None:
    if prediction.shape != target.shape:
        raise EvaluationError(
            f"prediction has shape {prediction.shape}, target {target.shape}: they must be the same voxel by voxel"
        )
