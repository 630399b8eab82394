"""Pixel sizes of packages and images, and resampling from one to the other.

Resampling is lazy: a region of the result is computed when it is read, from the part of the image around it. A voxel is
bit-identical in every region that contains it. The grids are aligned at the image's borders.

    image    |   0   |   1   |   2   |   3   |   4   |   5   |      6 voxels
    result   |     0     |     1     |     2     |     3     |      4 voxels over the same extent

Voxel i of the result has its centre at (i + 0.5) * old / new - 0.5 of the image. Its value is interpolated linearly; where
the image shrinks, after a Gaussian filter of sigma (old / new - 1) / 2 against aliasing, as in `skimage.transform.resize`.
Beyond its borders the image is mirrored, the border voxel first. Each axis is one weighted sum.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import PlanError
from im2im_zoo.images import pixel_size_um
from im2im_zoo.images.lazy import Key, lazy_image
from im2im_zoo.images.metadata import micrometres, positive

if TYPE_CHECKING:
    from im2im_zoo.package import Package

# At 25x instead of 20x, the nearest usual objective, objects are a quarter larger; augmentation by scale seldom goes
# beyond that. Differences of a few per cent are calibration errors and not worth a warning.
_LARGEST_RATIO = 1.25

# Most voxels of the image, and of the result, that are processed at once; this bounds the memory (see `READING_BYTES`).
_BOX_VOXELS = 2**21

# Most bytes that reading a region takes besides its result: the box as stored and as float64, a pass's sum and its part.
READING_BYTES = _BOX_VOXELS * 4 * 8

_TRUNCATE = 4.0  # sigmas, as scipy.ndimage.gaussian_filter


def model_pixel_size_um(package: "Package") -> dict[str, float]:
    """Return the pixel size in micrometres of the package's first input, for the space axes that declare one.

    An axis declares it by its scale and unit, or the package by `config.im2im_zoo.pixel_size_um`. A scale without a unit, or with a
    unit other than a length, is ignored: 1.0 is the format's default.
    """
    sizes = _stated_in_config(package)
    for axis in package.inputs[0].axes:
        size = positive(micrometres(getattr(axis, "scale", None), getattr(axis, "unit", None)))
        if axis.type == "space" and size is not None:
            sizes[str(axis.id)] = size
    return sizes


def _stated_in_config(package: "Package") -> dict[str, float]:
    found: object = package.raw
    for key in ("config", "im2im_zoo", "pixel_size_um"):
        found = found.get(key) if isinstance(found, dict) else None
    stated = found if isinstance(found, dict) else {}
    sizes = {a: positive(micrometres(stated.get(a), "micrometer")) for a in SPACE}
    return {axis: size for axis, size in sizes.items() if size is not None}


def pixel_size_warning(package: "Package", image: xr.DataArray) -> str | None:
    """Return a warning if pixel sizes of image and package differ by a factor of more than 1.25 along any axis, else None."""
    model, own = model_pixel_size_um(package), pixel_size_um(image)
    both = [a for a in SPACE if a in model and a in own]
    if all(max(own[a] / model[a], model[a] / own[a]) <= _LARGEST_RATIO for a in both):
        return None
    return (
        f"the pixel size of {image.attrs.get('source', 'the image')} is {_lengths(own, both)}, but {package.name!r} "
        f"was trained at {_lengths(model, both)}, so objects appear at another size than in training; "
        "use --rescale to resample the image to the model's pixel size and the result back"
    )


def rescale_factors(package: "Package", image: xr.DataArray) -> dict[str, float]:
    """Return the factor by which the image is resampled along each axis to match the package's pixel sizes.

    Returns:
        Space axis -> pixel size of the image / pixel size of the model, where both are known; 2.0 doubles the voxels.

    Raises:
        PlanError: no axis has both pixel sizes.
    """
    model, own = model_pixel_size_um(package), pixel_size_um(image)
    factors: dict[str, float] = {a: own[a] / model[a] for a in SPACE if a in model and a in own}
    if factors:
        return factors
    source = image.attrs.get("source", "the image")
    if not model:
        reason = f"{package.name!r} does not declare the pixel size that it was trained at"
        remedy = "if you know it, resample the image yourself"
    elif not own:
        reason = f"{source} does not state its pixel size"
        remedy = "save it with its pixel size, as OME-TIFF or OME-Zarr"
    else:
        reason = f"{source} states it along {', '.join(own)} and {package.name!r} along {', '.join(model)}"
        remedy = f"save the image with its pixel size along {', '.join(model)}"
    raise PlanError(
        f"cannot rescale, as the pixel size is unknown: {reason}; {remedy}, or leave out --rescale"
    )


def resample_by(image: xr.DataArray, factors: Mapping[str, float], *, labels: bool = False) -> xr.DataArray:
    """Resample an image to round(n * factor) voxels, at least 1, along each axis of `factors`; see `resample_to`.

    Raises:
        PlanError: an axis that the image does not have, or a factor that is not finite and above 0.
    """
    for axis, factor in factors.items():
        if not (math.isfinite(factor) and factor > 0):
            raise PlanError(
                f"the factor of the axis {axis} is {factor}; use a number above 0, such as 0.5 for half the voxels"
            )
    # `resample_to` rejects an unknown axis.
    sizes = {a: max(1, round(image.sizes.get(a, 1) * factor)) for a, factor in factors.items()}
    return resample_to(image, sizes, labels=labels)


def resample_to(image: xr.DataArray, sizes: Mapping[str, int], *, labels: bool = False) -> xr.DataArray:
    """Resample an image to other sizes over the same extent, lazily.

    Args:
        image: any lazy or loaded image.
        sizes: axis -> voxels of the result; other axes keep their size.
        labels: take the nearest voxel instead of interpolating, which keeps values and dtype. Booleans are always labels.

    Returns:
        Integers of the image's dtype (rounded), or float32 for any float. `attrs` are those of the image, with
        `pixel_size_um` and `translation_um` of the new grid; coordinates of axes that keep their size are kept. Returns
        `image` itself if no size changes.

    Raises:
        PlanError: an axis that the image does not have, or a size below 1.
    """
    for axis, size in sizes.items():
        if axis not in image.dims:
            raise PlanError(
                f"cannot resample along {axis!r}: the image has the axes {', '.join(map(str, image.dims))}; leave out {axis!r}"
            )
        if size < 1 or image.sizes[axis] < 1:
            raise PlanError(
                f"cannot resample the axis {axis} from {image.sizes[axis]} to {size} voxels; use at least 1"
            )
    changed = {a: int(n) for a, n in sizes.items() if n != image.sizes[a]}
    if not changed:
        return image
    shape = tuple(changed.get(str(a), n) for a, n in image.sizes.items())
    result = lazy_image(
        ResampledSource(image, shape, labels or image.dtype.kind == "b"), tuple(str(a) for a in image.dims)
    )
    kept = {n: c for n, c in image.coords.items() if not set(map(str, c.dims)) & set(changed)}
    result = result.assign_coords(kept).rename(image.name)
    result.attrs = _attributes(image, changed)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class ResampledSource:
    """A resampled image as a `Source` of `images.lazy`.

    Attributes:
        image: the image to resample.
        shape: of the result, in voxels.
        labels: whether to take the nearest voxel instead of interpolating.
        box_voxels: most voxels of the image, and of the result, that are processed at once; the result is the same for any.
    """

    image: xr.DataArray
    shape: tuple[int, ...]
    labels: bool
    box_voxels: int = _BOX_VOXELS

    @property
    def path(self) -> Path:
        return Path(str(self.image.attrs.get("source", "image")))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype if self.labels or self.image.dtype.kind in "iu" else np.dtype(np.float32)

    def read(self, key: Key) -> NDArray[Any]:
        """Read a region; see `Source`. Takes at most `READING_BYTES` besides the result."""
        wanted = [range(n)[k] for n, k in zip(self.shape, key, strict=True)]
        region = np.empty([len(r) for r in wanted], self.dtype)
        if region.size:
            self._fill(region, wanted)
        return region

    def _fill(self, out: NDArray[Any], wanted: Sequence[range]) -> None:
        """Compute the voxels at `wanted` into `out`, halving the region until it and its input are small enough."""
        taps = [
            _taps(old, new, np.array(at, np.int64), self.labels) if old != new else None
            for old, new, at in zip(self.image.shape, self.shape, wanted, strict=True)
        ]
        box = [_box(t, at) for t, at in zip(taps, wanted, strict=True)]
        lengths = [len(range(s.start, s.stop, s.step or 1)) for s in box]
        divisible = [axis for axis, at in enumerate(wanted) if len(at) > 1]
        if divisible and max(math.prod(lengths), out.size) > self.box_voxels:
            axis = max(divisible, key=lambda a: lengths[a] * len(wanted[a]))
            half = len(wanted[axis]) // 2
            for part in (slice(0, half), slice(half, None)):
                inside = (slice(None),) * axis + (part,)
                self._fill(out[inside], [at[part] if a == axis else at for a, at in enumerate(wanted)])
            return
        block = self.image[tuple(box)].to_numpy()
        # Shrinking first keeps every sum no larger than the box or the result. The order is the same for all regions.
        order = sorted(range(len(taps)), key=lambda a: self.shape[a] / self.image.shape[a])
        passes = [(axis, each) for axis in order if (each := taps[axis]) is not None]
        # The average of an infinite voxel and others is NaN or infinity; no warning is needed.
        with np.errstate(invalid="ignore", over="ignore"):
            out[...] = (
                _nearest(block, passes)
                if self.labels
                else _round_to_dtype(_weighted_sums(block, passes), self.dtype)
            )


@dataclass(frozen=True, slots=True)
class _Taps:
    """The weighted voxels of the image that each voxel of the result is the sum of, along one axis.

    Attributes:
        positions: of the image's voxels, relative to `first`; shape (taps, voxels).
        weights: shape (taps, voxels); they sum to 1 over the taps.
        first, last: the range of voxels of the image to read.
    """

    positions: NDArray[np.int64]
    weights: NDArray[np.float64]
    first: int
    last: int


def _taps(old: int, new: int, at: NDArray[np.int64], nearest: bool) -> _Taps:
    """Return the taps of the voxels `at` of the result; they do not depend on the region that is read."""
    # Centres in units of 1 / (2 new) voxels are integers, so that rounding does not depend on the position.
    centre = (2 * at + 1) * old - new
    if nearest:
        positions = ((centre + new) // (2 * new))[None]
        weights = np.ones(positions.shape)
    else:
        below, fraction = centre // (2 * new), (centre % (2 * new)) / (2 * new)
        kernel = _gaussian(max(0.0, (old / new - 1) / 2))
        radius = len(kernel) // 2
        positions = below + np.arange(-radius, radius + 2)[:, None]
        padded = np.concatenate([[0.0], kernel, [0.0]])
        weights = padded[1:, None] * (1 - fraction) + padded[:-1, None] * fraction
        folded = positions % (2 * old)
        positions = np.minimum(folded, 2 * old - 1 - folded)
        # Voxels with weight 0 are replaced, as they may be NaN.
        positions = np.where(weights == 0, positions[radius], positions)
    first, last = int(positions.min()), int(positions.max())
    return _Taps(positions - first, weights, first, last)


def _gaussian(sigma: float) -> NDArray[np.float64]:
    radius = int(_TRUNCATE * sigma + 0.5)
    if radius == 0:
        return np.ones(1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    total: NDArray[np.float64] = kernel / kernel.sum()
    return total


def _box(taps: _Taps | None, at: range) -> slice:
    return slice(at.start, at.stop, at.step) if taps is None else slice(taps.first, taps.last + 1)


def _nearest(block: NDArray[Any], passes: Sequence[tuple[int, _Taps]]) -> NDArray[Any]:
    for axis, taps in passes:
        block = np.take(block, taps.positions[0], axis)
    return block


def _weighted_sums(block: NDArray[Any], passes: Sequence[tuple[int, _Taps]]) -> NDArray[np.float64]:
    """Compute the weighted sums, axis by axis.

    Each voxel is summed in the order of its taps in float64, so that it is bit-identical in every region; a matrix product
    does not guarantee that.
    """
    result: NDArray[np.float64] = block.astype(np.float64)
    for axis, taps in passes:
        along = [1] * block.ndim
        along[axis] = -1
        total = np.take(result, taps.positions[0], axis)
        total *= taps.weights[0].reshape(along)
        for positions, weights in zip(taps.positions[1:], taps.weights[1:], strict=True):
            part = np.take(result, positions, axis)
            part *= weights.reshape(along)
            total += part
        result = total
    return result


def _round_to_dtype(block: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """Round and clip to the range of an integer dtype, in place; leave floats unchanged."""
    if dtype.kind not in "iu":
        return block
    limits = np.iinfo(dtype)
    # The largest 64-bit integer has no float64; the next larger float64 would wrap around.
    highest = (
        float(limits.max) if int(float(limits.max)) <= limits.max else np.nextafter(float(limits.max), 0)
    )
    np.rint(block, out=block)
    return np.clip(block, limits.min, highest, out=block)


def _attributes(image: xr.DataArray, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return the image's attributes with pixel size and translation of the new grid."""
    old = pixel_size_um(image)
    new = {a: _round_off(s * image.sizes[a] / sizes.get(a, image.sizes[a])) for a, s in old.items()}
    attributes = {**image.attrs}
    if "pixel_size_um" in image.attrs:
        attributes["pixel_size_um"] = new
    if "translation_um" in image.attrs:
        # The border stays in place, and the first centre is half a voxel from it; this needs the pixel size.
        places = {str(a): float(place) for a, place in image.attrs["translation_um"].items()}
        attributes["translation_um"] = {
            a: _round_off(place + (new[a] - old[a]) / 2) if a in sizes else place
            for a, place in places.items()
            if a not in sizes or a in old
        }
    return attributes


def _lengths(sizes: Mapping[str, float], axes: Sequence[str]) -> str:
    return ", ".join(f"{a} {sizes[a]:.4g}" for a in axes) + " µm"


def _round_off(value: float) -> float:
    """Remove rounding errors of resampling forth and back: 0.3, not 0.30000000000000004."""
    short = float(f"{value:.12g}")
    return short if math.isclose(short, value, rel_tol=1e-15) else value
