"""NIfTI, through nibabel: uncompressed voxels are read where they lie, compressed ones are decoded whole at the first read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import MappedSource, OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata, known, micrometres, positive, seconds
from im2im_zoo.images.optional_library import import_reader

# Deflate cannot exceed about 1030 bytes a byte.
_MOST_RATIO = 1100
# The order of the standard: x is fastest, the fourth dimension is time, the fifth holds values of a voxel.
_AXES: tuple[AxisName, ...] = ("channel", "time", "z", "y", "x")


class Nifti(ImageFormat):
    """NIfTI-1 and NIfTI-2 of one file. The orientation in space is ignored."""

    name = "NIfTI"
    reads = (".nii", ".nii.gz")
    extra = "nifti"

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open an image; its axes are those of the standard, and those of length 1 are left out but for y and x."""
        nibabel = import_reader("nibabel", "nifti", path, "NIfTI")
        image = nibabel.load(path)
        header, proxy = image.header, image.dataobj
        stored = np.dtype(header.get_data_dtype())
        if stored.kind not in "iuf":
            raise ImageError(
                f"{path}: holds {stored} values, which are no image of numbers; save each colour as an image"
            )
        full = tuple(int(n) for n in reversed(image.shape))
        if not 2 <= len(full) <= len(_AXES):
            raise ImageError(
                f"{path}: has {len(full)} dimensions, of which 2 to 5 are read; save a part of it"
            )
        kept = tuple(axis in ("y", "x") or n > 1 for axis, n in zip(_AXES[-len(full) :], full, strict=True))
        axes = tuple(axis for axis, keep in zip(_AXES[-len(full) :], kept, strict=True) if keep)
        shape = tuple(n for n, keep in zip(full, kept, strict=True) if keep)
        length, duration = header.get_xyzt_units()
        zooms = dict(zip(("x", "y", "z", "time"), map(_without_noise, header.get_zooms()), strict=False))
        metadata = ImageMetadata(
            axes,
            "the NIfTI standard",
            pixel_size_um=known(
                **{a: positive(micrometres(zooms[a], length)) for a in axes if a in zooms and a != "time"}
            ),
            time_step_s=positive(seconds(zooms.get("time"), duration)) if "time" in axes else None,
            singletons=frozenset(
                axis for axis, keep in zip(_AXES[-len(full) :], kept, strict=True) if not keep
            ),
        )
        is_scaled = (float(proxy.slope), float(proxy.inter)) != (1.0, 0.0)
        is_packed = path.name.lower().endswith(".gz")
        needed = int(proxy.offset) + int(np.prod(shape, dtype=object)) * stored.itemsize
        if needed > path.stat().st_size * (_MOST_RATIO if is_packed else 1):
            raise ImageError(
                f"{path}: is cut short: it has fewer voxels than its header states; copy it again"
            )
        if not is_scaled and not is_packed:
            return MappedSource(path, shape, stored, int(proxy.offset)), metadata
        # Scaled numbers of 16 bits are exact enough in float32.
        dtype = stored if not is_scaled else np.dtype("float32" if stored.itemsize <= 2 else "float64")
        chunks = shape if is_packed else None
        return OpenedSource(path, shape, dtype, open_nifti, path, kept, chunks=chunks), metadata


def _without_noise(size: float) -> float:
    """Return a size that the header has in 32 bits: 0.1, not 0.100000001."""
    return float(f"{float(size):.7g}")


def open_nifti(path: Path, kept: tuple[bool, ...]) -> tuple[Any, Callable[[], None]]:
    """Return the voxels with the slowest axis first, without the axes that are not kept, and a function that does nothing."""
    proxy = import_reader("nibabel", "nifti", path, "NIfTI").load(path).dataobj
    if path.name.lower().endswith(".gz"):
        return np.asarray(proxy).transpose()[tuple(slice(None) if keep else 0 for keep in kept)], lambda: None
    return _Reversed(proxy, kept), lambda: None


class _Reversed:
    """Voxels that a library has with the fastest axis first; indexed by slices of the kept axes, the slowest first."""

    def __init__(self, proxy: Any, kept: tuple[bool, ...]) -> None:
        self._proxy = proxy
        self._kept = kept

    def __getitem__(self, key: tuple[slice, ...]) -> Any:
        keys = iter(key)
        full = [next(keys) if keep else 0 for keep in self._kept]
        return self._proxy[tuple(reversed(full))].transpose()
