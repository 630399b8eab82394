"""Overviews of large images: coarser levels of an OME-Zarr, the colours that it states, and reduced reading of any image."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.images.address import Place, as_place
from im2im_zoo.images.open import open_image

_MANY_VOXELS = 10**9
_BLOCK_BYTES = 64 * 2**20
_SPACE = ("z", "y", "x")


@dataclass(frozen=True, slots=True, eq=False)
class ReducedImage:
    """An image, lazily, whose voxels along y and x are read as one for each block of `factor` x `factor` of the original.

    Attributes:
        image: the image, or a coarser level of it.
        factors: voxels of the original for one of `image`, by space axis.
        factor: voxels of the original along y and x for one that is read; a power of two.
        level: number of the level of the pyramid, 0 for the original.
        sizes: of the original.
        is_labels: whether every n-th voxel is read instead of the mean of those that become one.
    """

    image: xr.DataArray
    factors: Mapping[str, int]
    factor: int
    level: int
    sizes: Mapping[str, int]
    is_labels: bool = False

    @property
    def step(self) -> int:
        """Voxels of `image` along y and x for one that is read."""
        return self.factor // self.factors["y"]

    def plane(self, z: int) -> int:
        """Return the plane of `image` that has a plane of the original."""
        return min(z // self.factors.get("z", 1), self.image.sizes.get("z", 1) - 1)

    def read(self, time: int, planes: Sequence[int] | None) -> NDArray[Any]:
        """Read planes of one time point, block by block.

        Args:
            time: index, 0 if the image has no time axis.
            planes: of the original; None for the maximum over all.

        Returns:
            (plane, channel, y, x): float32, or labels in their type; one plane if there is no z axis.
        """
        image = _arranged(self.image, time)
        chosen = None if planes is None else [self.plane(z) for z in planes]
        slabs = _slabs(image, chosen)
        found: list[NDArray[Any]] = []
        for start, stop, picked in slabs:
            slab = _read_slab(image.isel(z=slice(start, stop)), picked, self.step, labels=self.is_labels)
            found = [np.fmax(found[0], slab)] if planes is None and found else [*found, slab]
        whole = np.concatenate(found)
        if planes is None:
            return whole
        order = [sorted(set(chosen or ())).index(z) for z in chosen or ()]
        return np.asarray(whole[order])


def reduce_image(
    source: str | Place,
    image: xr.DataArray,
    longest: int,
    *,
    axes: str | None = None,
    channels: Sequence[int | str] | None = None,
    labels: bool = False,
) -> ReducedImage:
    """Return an image so reduced that its longer side, of y and x, has at most `longest` voxels.

    Of an OME-Zarr the coarsest level that is fine enough is taken. Nothing is read but metadata.

    Args:
        source: its place; see `open_image`.
        image: opened from there.
        longest: voxels.
        axes, channels: with which it was opened.
        labels: read every n-th voxel instead of means, and a level only of an OME-Zarr that states to be labels.
    """
    sizes = {str(axis): int(n) for axis, n in image.sizes.items()}
    side = max(sizes["y"], sizes["x"])
    factor = 2 ** max(0, math.ceil(math.log2(side / longest)))
    whole = ReducedImage(image, dict.fromkeys(_SPACE, 1), factor, 0, sizes, labels)
    if factor == 1 or (labels and "image-label" not in _ome(source)):
        return whole
    found = [whole]
    for number, place in enumerate(_level_places(source)):
        try:
            level = open_image(place, axes=axes, channels=channels)
        except Im2ImError:  # a level that is missing or damaged; the others are enough
            continue
        factors = _factors(sizes, level)
        if factors is not None and factor % factors["y"] == 0:
            found.append(ReducedImage(level, factors, factor, number, sizes, labels))
    # Means over z change what a plane shows, so that they are taken only where all else takes too long.
    same_z = max((r for r in found if r.factors["z"] == 1), key=lambda r: r.factors["y"])
    return same_z if same_z.image.size <= _MANY_VOXELS else max(found, key=lambda r: r.factors["y"])


def stated_colours(source: str | Place) -> tuple[tuple[int, int, int], ...]:
    """Return the colours (red, green, blue) that the OME metadata of an OME-Zarr state, one a channel; () if there are none.

    Colours that `write_image` gives to channels by their number count as none, because nobody chose them.
    """
    from im2im_zoo.images.formats.ome_zarr.metadata import default_colours

    omero = _ome(source).get("omero")
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    words = [str(c.get("color", "")) for c in channels or () if isinstance(c, Mapping)]
    if words == default_colours(len(words)):
        return ()
    try:
        return tuple((int(w[0:2], 16), int(w[2:4], 16), int(w[4:6], 16)) for w in words)
    except ValueError:
        return ()


def label_names(source: str | Place) -> tuple[str, ...]:
    """Return the names of the label images that an OME-Zarr on the disk lists; () for other files."""
    names = _ome(Path(str(source)) / "labels").get("labels")
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _ome(source: str | Place) -> Mapping[str, Any]:
    """Return the OME metadata of a zarr; {} for anything else."""
    from im2im_zoo.images.formats.ome_zarr.contents import is_zarr, ome_of
    from im2im_zoo.images.formats.ome_zarr.read import read_attributes

    place = as_place(source)
    if isinstance(place, Path) and not is_zarr(place.expanduser()):
        return {}
    try:
        return ome_of(read_attributes(place))
    except Im2ImError:
        return {}


def _level_places(source: str | Place) -> list[Place]:
    from im2im_zoo.images.address import place_within

    multiscales = _ome(source).get("multiscales")
    try:
        paths = [str(dataset["path"]) for dataset in multiscales[0]["datasets"]] if multiscales else []
        place = as_place(source)
        root = place.expanduser() if isinstance(place, Path) else place
        return [place_within(root, path) for path in paths]
    except (Im2ImError, KeyError, IndexError, TypeError):
        return []


def _factors(sizes: Mapping[str, int], level: xr.DataArray) -> dict[str, int] | None:
    """Return the voxels of the original for one of a level, by space axis; None if the level does not cover the same image."""
    same = [axis for axis in level.dims if axis not in (*_SPACE, "channel")]
    if not set(map(str, level.dims)) >= set(sizes) - {"channel"}:
        return None
    if any(level.sizes[axis] != sizes.get(str(axis)) for axis in same):
        return None
    factors = {axis: max(1, round(sizes.get(axis, 1) / level.sizes.get(axis, 1))) for axis in _SPACE}
    covers = all(
        sizes.get(axis, 1) // f <= level.sizes.get(axis, 1) <= math.ceil(sizes.get(axis, 1) / f)
        for axis, f in factors.items()
    )
    return factors if covers and factors["y"] == factors["x"] else None


def _arranged(image: xr.DataArray, time: int) -> xr.DataArray:
    """Return the image as (z, channel, y, x) at a time point, at the first position of other axes."""
    from im2im_zoo.images.lazy import arranged_image

    others = {
        str(axis): (time if axis == "time" else 0) for axis in image.dims if axis not in (*_SPACE, "channel")
    }
    return arranged_image(image, ("z", "channel", "y", "x"), others)


def _slabs(image: xr.DataArray, chosen: Sequence[int] | None) -> Iterator[tuple[int, int, list[int] | None]]:
    """Yield start and stop of slabs along z that are decoded at once, and the planes to keep of each; None for their maximum."""
    depth = int((image.encoding.get("preferred_chunks") or {}).get("z", 1))
    planes = range(image.sizes["z"]) if chosen is None else sorted(set(chosen))
    groups: dict[int, list[int]] = {}
    for z in planes:
        groups.setdefault(z // depth, []).append(z)
    for group in groups.values():
        start, stop = group[0], group[-1] + 1
        yield start, stop, None if chosen is None else [z - start for z in group]


def _read_slab(image: xr.DataArray, picked: list[int] | None, step: int, *, labels: bool) -> NDArray[Any]:
    """Return some planes of a slab (z, channel, y, x), or their maximum as one, reduced along y and x; read in blocks of rows."""
    z, channels, height, width = image.shape
    rows = max(1, _BLOCK_BYTES // max(1, z * channels * width * max(4, image.dtype.itemsize)) // step) * step
    parts = []
    for top in range(0, height, rows):
        block = image.isel(y=slice(top, min(height, top + rows))).to_numpy()
        block = block if picked is None else block[picked]
        reduced = block[..., ::step, ::step] if labels else _means(block, step)
        parts.append(np.fmax.reduce(reduced, axis=0, keepdims=True) if picked is None else reduced)
    return np.concatenate(parts, axis=2)


def _means(block: NDArray[Any], step: int) -> NDArray[np.float32]:
    """Return the mean of step x step voxels along the last two axes; at the far border of those that are there."""
    mean: NDArray[Any] = block.astype(np.float32)
    for axis in (-2, -1):
        if step > 1:
            starts = np.arange(0, mean.shape[axis], step)
            counts = np.diff([*starts, mean.shape[axis]]).astype(np.float32)
            shape = [1] * mean.ndim
            shape[axis] = -1
            mean = np.add.reduceat(mean, starts, axis=axis) / counts.reshape(shape)
    return np.asarray(mean, np.float32)
