"""Physical pixel sizes: what a package declares, how far an image is from it, and resampling from one to the other.

Resampling is lazy: a region of the result is computed when it is read, from the part of the image around it, and is bit
for bit the same whichever region it is read in. It is no registration: the grids are aligned at the image's borders.

    image    |   0   |   1   |   2   |   3   |   4   |   5   |      6 voxels
    result   |     0     |     1     |     2     |     3     |      4 voxels over the same extent

Voxel i of the result has its centre at (i + 0.5) * old / new - 0.5 of the image. Its value is interpolated linearly; where
the image shrinks, after a Gaussian filter of sigma (old / new - 1) / 2 against aliasing, as `skimage.transform.resize` does
it. Beyond its borders the image is mirrored as one whole, the border voxel first. Each axis is one weighted sum.
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

# A network that was trained at 20x sees objects of a quarter more at 25x, the step to the nearest usual objective, and
# augmentation by scale seldom goes beyond it. Differences of some per cent are those of calibration, and no news.
_LARGEST_RATIO = 1.25

# Voxels of the image, and of the result, that are worked on at once: what bounds the memory (see `READING_BYTES`).
_BOX_VOXELS = 2**21

# The most that reading a region takes beside its result: the box as stored, as float64, one pass's sum and its part.
READING_BYTES = _BOX_VOXELS * 4 * 8

_TRUNCATE = 4.0  # sigmas, as scipy.ndimage.gaussian_filter


def model_pixel_size_um(package: "Package") -> dict[str, float]:
    """Micrometres between voxels for the space axes of the package's first input, only those that it declares.

    A scale without a unit, or with a unit that is no length, declares nothing: 1.0 is the format's default.
    """
    sizes = {}
    for axis in package.inputs[0].axes:
        size = positive(micrometres(getattr(axis, "scale", None), getattr(axis, "unit", None)))
        if axis.type == "space" and size is not None:
            sizes[str(axis.id)] = size
    return sizes


def pixel_size_warning(package: "Package", image: xr.DataArray) -> str | None:
    """One sentence if the image's voxels are far from those that the package declares, else None.

    Far is a factor of more than 1.25 along any axis for which both are known.
    """
    model, own = model_pixel_size_um(package), pixel_size_um(image)
    both = [a for a in SPACE if a in model and a in own]
    if all(max(own[a] / model[a], model[a] / own[a]) <= _LARGEST_RATIO for a in both):
        return None
    return (
        f"the voxels of {image.attrs.get('source', 'the image')} are {_lengths(own, both)}, but {package.name!r} "
        f"was made for {_lengths(model, both)}: what it sees is of another size than what it learned; "
        "--rescale resamples the image to the model's and puts the result back on the image's grid"
    )


def rescale_factors(package: "Package", image: xr.DataArray) -> dict[str, float]:
    """By which factor the image has to be resampled along each axis, to have the package's pixel sizes.

    Returns:
        space axis -> the image's size / the model's, for those axes for which both are known: 2.0 is twice the voxels.

    Raises:
        PlanError: there is no such axis; the message says who does not state it.
    """
    model, own = model_pixel_size_um(package), pixel_size_um(image)
    factors: dict[str, float] = {a: own[a] / model[a] for a in SPACE if a in model and a in own}
    if factors:
        return factors
    source = image.attrs.get("source", "the image")
    if not model:
        reason = f"{package.name!r} does not declare the pixel size that it was made for"
        remedy = "resample the image yourself if you know it"
    elif not own:
        reason = f"{source} does not state its pixel size"
        remedy = "save it with its pixel size, as OME-TIFF or OME-Zarr"
    else:
        reason = f"{source} states it along {', '.join(own)} and {package.name!r} along {', '.join(model)}"
        remedy = "save the image with its pixel size along those"
    raise PlanError(
        f"the pixel size is not known, so nothing can be rescaled: {reason}; {remedy}, or leave out --rescale"
    )


def resampled(image: xr.DataArray, factors: Mapping[str, float], *, labels: bool = False) -> xr.DataArray:
    """The image with round(n * factor) voxels, at least 1, along each axis of `factors`; see `resampled_to`.

    Raises:
        PlanError: an axis that the image does not have, or a factor that is not finite and above 0.
    """
    for axis, factor in factors.items():
        if not (math.isfinite(factor) and factor > 0):
            raise PlanError(
                f"the factor of {axis} is {factor}; give a number above 0, such as 0.5 for half the voxels"
            )
    # An unknown axis is refused below.
    sizes = {a: max(1, round(image.sizes.get(a, 1) * factor)) for a, factor in factors.items()}
    return resampled_to(image, sizes, labels=labels)


def resampled_to(image: xr.DataArray, sizes: Mapping[str, int], *, labels: bool = False) -> xr.DataArray:
    """The image with other sizes over the same extent, lazily: no voxel is read.

    Args:
        image: any lazy or loaded image.
        sizes: axis -> voxels of the result; the other axes stay as they are.
        labels: take the nearest voxel instead of interpolating, which keeps values and dtype. Booleans always are labels.

    Returns:
        Integers of the image's dtype (rounded), or float32 for any float. `attrs` are those of the image, with
        `pixel_size_um` and `translation_um` of the new grid; coordinates of axes that keep their size are kept. If no size
        changes, this is `image` itself.

    Raises:
        PlanError: an axis that the image does not have, or a size below 1.
    """
    for axis, size in sizes.items():
        if axis not in image.dims:
            raise PlanError(
                f"cannot resample along {axis!r}: the image has the axes {', '.join(map(str, image.dims))}; leave it out"
            )
        if size < 1 or image.sizes[axis] < 1:
            raise PlanError(
                f"cannot resample {axis} from {image.sizes[axis]} to {size} voxels; give at least 1"
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
    """An image on another grid, a `Source` of im2im_zoo.images.lazy.

    Attributes:
        image: what is resampled.
        shape: of the result.
        labels: whether the nearest voxel is taken.
    """

    image: xr.DataArray
    shape: tuple[int, ...]
    labels: bool

    @property
    def path(self) -> Path:
        return Path(str(self.image.attrs.get("source", "image")))

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.image.dtype if self.labels or self.image.dtype.kind in "iu" else np.dtype(np.float32)

    def read(self, key: Key) -> NDArray[Any]:
        """See `Source`. Takes at most `READING_BYTES` beside the result."""
        wanted = [
            range(n)[k : k + 1 or None] if isinstance(k, int) else range(n)[k]
            for n, k in zip(self.shape, key, strict=True)
        ]
        region = np.empty([len(r) for r in wanted], self.dtype)
        if region.size:
            self._fill(region, wanted)
        return region[tuple(0 if isinstance(k, int) else slice(None) for k in key)]

    def _fill(self, out: NDArray[Any], wanted: Sequence[range]) -> None:
        """Compute the voxels at `wanted` into `out`, in halves until both they and what has to be read are few."""
        taps = [
            _taps(old, new, np.array(at, np.int64), self.labels) if old != new else None
            for old, new, at in zip(self.image.shape, self.shape, wanted, strict=True)
        ]
        box = [_box(t, at) for t, at in zip(taps, wanted, strict=True)]
        lengths = [len(range(s.start, s.stop, s.step or 1)) for s in box]
        divisible = [axis for axis, at in enumerate(wanted) if len(at) > 1]
        if divisible and max(math.prod(lengths), out.size) > _BOX_VOXELS:
            axis = max(divisible, key=lambda a: lengths[a] * len(wanted[a]))
            half = len(wanted[axis]) // 2
            for part in (slice(0, half), slice(half, None)):
                inside = (slice(None),) * axis + (part,)
                self._fill(out[inside], [at[part] if a == axis else at for a, at in enumerate(wanted)])
            return
        block = self.image[tuple(box)].to_numpy()
        # Shrinking first keeps every sum within the larger of the box and the result; the order is that of all regions.
        order = sorted(range(len(taps)), key=lambda a: self.shape[a] / self.image.shape[a])
        passes = [(axis, each) for axis in order if (each := taps[axis]) is not None]
        # An infinite voxel beside others gives NaN or infinity, which is what there is to say of them.
        with np.errstate(invalid="ignore", over="ignore"):
            out[...] = (
                _nearest(block, passes) if self.labels else _fitted(_weighted(block, passes), self.dtype)
            )


@dataclass(frozen=True, slots=True)
class _Taps:
    """What each voxel of the result is a sum of, along one axis.

    Attributes:
        positions: of the image's voxels, counted from the first that is read; shape (taps, voxels).
        weights: of each; they sum to 1 over the taps.
        first, last: voxels of the image between which all of them lie.
    """

    positions: NDArray[np.int64]
    weights: NDArray[np.float64]
    first: int
    last: int


def _taps(old: int, new: int, at: NDArray[np.int64], nearest: bool) -> _Taps:
    """The taps of the voxels `at` of the result. They depend on nothing else, which makes regions agree."""
    # Centres in units of 1 / (2 new) voxels: integers, so that no rounding depends on where a voxel lies.
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
        # A voxel without weight is not looked at: it may be NaN.
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


def _weighted(block: NDArray[Any], passes: Sequence[tuple[int, _Taps]]) -> NDArray[np.float64]:
    """The sums, axis after axis.

    Each voxel's sum is made in the order of its taps and with the roundings of float64, whichever region it is in; a matrix
    product would not promise that.
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


def _fitted(block: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """As an integer dtype can hold it: rounded and clipped, in place."""
    if dtype.kind not in "iu":
        return block
    limits = np.iinfo(dtype)
    # The last integer of 64 bits is no float64; the one above it would wrap around.
    highest = (
        float(limits.max) if int(float(limits.max)) <= limits.max else np.nextafter(float(limits.max), 0)
    )
    np.rint(block, out=block)
    return np.clip(block, limits.min, highest, out=block)


def _attributes(image: xr.DataArray, sizes: Mapping[str, int]) -> dict[str, Any]:
    """The image's attributes with its pixel sizes and first voxel's place on the new grid."""
    old = pixel_size_um(image)
    new = {a: _tidy(s * image.sizes[a] / sizes.get(a, image.sizes[a])) for a, s in old.items()}
    attributes = {**image.attrs}
    if "pixel_size_um" in image.attrs:
        attributes["pixel_size_um"] = new
    if "translation_um" in image.attrs:
        # The border stays where it is, and the first centre is half a voxel from it; unknown without a pixel size.
        places = {str(a): float(place) for a, place in image.attrs["translation_um"].items()}
        attributes["translation_um"] = {
            a: _tidy(place + (new[a] - old[a]) / 2) if a in sizes else place
            for a, place in places.items()
            if a not in sizes or a in old
        }
    return attributes


def _lengths(sizes: Mapping[str, float], axes: Sequence[str]) -> str:
    return ", ".join(f"{a} {sizes[a]:.4g}" for a in axes) + " µm"


def _tidy(value: float) -> float:
    """Without the last bits that going to another grid and back leaves: 0.3, not 0.30000000000000004."""
    short = float(f"{value:.12g}")
    return short if math.isclose(short, value, rel_tol=1e-15) else value
