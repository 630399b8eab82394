"""HDF5 as ilastik, PlantSeg and BigDataViewer write it, and any other with a dataset of numbers; read chunk by chunk through h5py."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AXES, AxisName, parse_axes
from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import MissingChunks, OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata, as_number, known, micrometres, positive
from im2im_zoo.images.optional_library import import_reader

_LISTED = 20
_MOST_OBJECTS = 100_000


class Hdf5(ImageFormat):
    """HDF5: one dataset is an image."""

    name = "HDF5"
    reads = (".h5", ".hdf5", ".ilp")
    by_path = True
    extra = "hdf5"

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open the only dataset that looks like an image."""
        with _open_file(path) as file:
            return _describe(path, file, _only_image(path, file))

    def open_within(self, path: Path, inner: str) -> tuple[Source, ImageMetadata]:
        """Open the dataset at a path within the file."""
        with _open_file(path) as file:
            return _describe(path, file, inner)


def open_dataset(path: Path, inner: str) -> tuple[Any, Callable[[], None]]:
    """Return a dataset, indexed by slices, and the function that closes its file."""
    file = _open_file(path)
    return _dataset(path, file, inner), file.close


def _open_file(path: Path) -> Any:
    h5py = import_reader("h5py", "hdf5", path, "HDF5")
    return h5py.File(path, "r", locking="best-effort")


def _only_image(path: Path, file: Any) -> str:
    """Return the path of the only dataset that looks like an image; of the levels of a pyramid of BigDataViewer, the full one.

    Raises:
        ImageError: there is none, or several; the message lists them.
    """
    found = _images(file)
    if not found:
        raise ImageError(f"{path}: has no dataset that is an image (numbers in two or more dimensions)")
    # Beside its images, BigDataViewer has tables of its levels.
    of_bdv = [name for name in found if _is_bdv(name)]
    whole = [name for name in of_bdv or found if not _is_reduced(name, found)]
    if len(whole) > 1:
        listed = ", ".join(f"{name} {found[name]}" for name in whole[:_LISTED])
        more = f" and {len(whole) - _LISTED} more" if len(whole) > _LISTED else ""
        raise ImageError(
            f"{path}: holds {len(whole)} datasets: {listed}{more}; name one, as in '{path.name}:/{whole[0]}'"
        )
    return whole[0]


def _images(file: Any) -> dict[str, str]:
    """Return the shape and type of each dataset that may be an image; only what lies in this file is looked at, no link."""
    import h5py

    found: dict[str, str] = {}
    seen = 0

    def look(name: str, item: Any) -> bool | None:
        nonlocal seen
        seen += 1
        if isinstance(item, h5py.Dataset) and _is_image(item):
            found[name] = f"{item.shape} {item.dtype}"
        return True if seen > _MOST_OBJECTS else None

    file.visititems(look)
    return found


def _is_image(dataset: Any) -> bool:
    shape = dataset.shape or ()
    long_enough = sum(n > 1 for n in shape) >= 2 and 2 <= len(shape) <= len(AXES)
    return long_enough and dataset.dtype.kind in "biuf" and not dataset.is_scale


def _is_reduced(name: str, names: Mapping[str, Any]) -> bool:
    """Return whether a dataset is a reduced level of BigDataViewer's (`t00000/s00/1/cells`)."""
    parts = PurePosixPath(name).parts
    is_level = len(parts) == 4 and parts[3] == "cells" and parts[2].isdecimal() and parts[2] != "0"
    return is_level and "/".join((*parts[:2], "0", "cells")) in names


def _dataset(path: Path, file: Any, inner: str) -> Any:
    """Return a dataset of this file.

    Raises:
        ImageError: there is none of this name, or its voxels are in another file.
    """
    import h5py

    group = file
    parts = [part for part in inner.split("/") if part]
    for number, part in enumerate(parts):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            there = ", ".join(_images(file)) or "none"
            raise ImageError(f"{path}: has no dataset {inner!r}; its datasets are {there}")
        if not isinstance(link, h5py.HardLink):
            raise ImageError(
                f"{path}: {'/'.join(parts[: number + 1])!r} is a link, which is not followed; name the dataset that it leads to"
            )
        group = group[part]
    if not isinstance(group, h5py.Dataset):
        within = [f"{name} {about}" for name, about in _images(file).items() if name.startswith(f"{inner}/")]
        raise ImageError(
            f"{path}: {inner!r} is a group; name one of its datasets: {', '.join(within[:_LISTED]) or 'none is an image'}"
        )
    virtual = [source.file_name for source in group.virtual_sources()] if group.is_virtual else []
    if group.external or any(name != "." for name in virtual):
        raise ImageError(
            f"{path}: the voxels of {inner!r} are in other files, which are not read; write the dataset into one file"
        )
    return group


def _describe(path: Path, file: Any, inner: str) -> tuple[Source, ImageMetadata]:
    dataset = _dataset(path, file, inner)
    if dataset.shape is None or dataset.dtype.kind not in "biuf":
        raise ImageError(f"{path}: {inner!r} holds {dataset.dtype} values, which are no image of numbers")
    place = dataset.id.get_offset()
    if place is not None and place + dataset.id.get_storage_size() > path.stat().st_size:
        raise ImageError(f"{path}: is cut short: the voxels of {inner!r} end beyond the file; copy it again")
    shape = tuple(map(int, dataset.shape))
    metadata = _metadata(path, dataset, inner, shape)
    # BigDataViewer stores unsigned numbers as signed ones of the same bits.
    is_unsigned = _is_bdv(inner) and dataset.dtype == np.dtype("int16")
    dtype = np.dtype("uint16") if is_unsigned else np.dtype(dataset.dtype)
    kind = _Unsigned if is_unsigned else _Dataset
    return kind(path, shape, dtype, open_dataset, path, inner, chunks=dataset.chunks), metadata


class _Dataset(OpenedSource):
    """Voxels of a dataset, a `ChunkedSource`."""

    def missing_chunks(self, used: Sequence[NDArray[np.bool_]]) -> MissingChunks:
        """Count the chunks that were never written."""
        dataset = self._array()
        if self.chunks is None:
            return MissingChunks(0, 1, 0)
        needed = [
            np.logical_or.reduceat(axis, np.arange(0, len(axis), side))
            for axis, side in zip(used, self.chunks, strict=True)
        ]
        found = 0

        def look(info: Any) -> None:
            nonlocal found
            places = zip(needed, info.chunk_offset, self.chunks or (), strict=True)
            found += all(axis[at // side] for axis, at, side in places)

        dataset.id.chunk_iter(look)
        total = math.prod(int(axis.sum()) for axis in needed)
        return MissingChunks(total - found, total, dataset.fillvalue)


class _Unsigned(_Dataset):
    """Voxels that are stored as signed numbers and mean unsigned ones."""

    def read(self, key: tuple[slice, ...]) -> NDArray[Any]:
        return np.ascontiguousarray(self._array()[key]).view(self.dtype)


def _metadata(path: Path, dataset: Any, inner: str, shape: tuple[int, ...]) -> ImageMetadata:
    if _is_bdv(inner):
        return _bdv(path, inner, len(shape))
    if "axistags" in dataset.attrs:
        axes = _tagged_axes(dataset.attrs["axistags"], len(shape))
        return ImageMetadata(axes, "its axistags", axes_note="" if axes else "its axistags fit no image")
    labels = [str(dimension.label) for dimension in dataset.dims]
    if (axes := _named(labels)) is not None:
        return ImageMetadata(axes, "its dimension labels")
    if "element_size_um" in dataset.attrs:
        return _plantseg(dataset, shape)
    return ImageMetadata(("y", "x") if len(shape) == 2 else None, "its two dimensions")


def _tagged_axes(text: object, ndim: int) -> tuple[AxisName, ...] | None:
    """Return the axes of vigra's axistags, JSON in the order of the dimensions."""
    try:
        words = [str(axis["key"]) for axis in json.loads(str(text))["axes"]]
    except (ValueError, KeyError, TypeError):
        return None
    axes = _named(words)
    return axes if axes is not None and len(axes) == ndim else None


def _named(words: Sequence[str]) -> tuple[AxisName, ...] | None:
    try:
        return parse_axes(words) if all(words) else None
    except AxesError:
        return None


def _plantseg(dataset: Any, shape: tuple[int, ...]) -> ImageMetadata:
    """Return the metadata of PlantSeg's: a size in micrometres for z, y, x, which are the last axes."""
    sizes = [positive(as_number(float(v))) for v in np.ravel(dataset.attrs["element_size_um"])[-3:]]
    space: tuple[AxisName, ...] = ("z", "y", "x")
    axes = {2: space[1:], 3: space, 4: ("channel", *space)}.get(len(shape))
    found = dict(zip(space[-len(sizes) :], sizes, strict=True))
    return ImageMetadata(axes, "its element_size_um", pixel_size_um=known(**found))


def _is_bdv(inner: str) -> bool:
    parts = PurePosixPath(inner).parts
    return len(parts) == 4 and parts[3] == "cells" and parts[0][:1] == "t" and parts[1][:1] == "s"


def _bdv(path: Path, inner: str, ndim: int) -> ImageMetadata:
    """Return the metadata of BigDataViewer's: z, y, x; voxel sizes from the XML beside the file, times the level's reduction."""
    axes: tuple[AxisName, ...] | None = ("z", "y", "x") if ndim == 3 else None
    return ImageMetadata(axes, "BigDataViewer's layout", pixel_size_um=_bdv_sizes(path, inner))


def _bdv_sizes(path: Path, inner: str) -> dict[str, float]:
    document = path.with_suffix(".xml")
    if not document.is_file():
        return {}
    text = document.read_text(encoding="utf-8", errors="replace")
    # An entity could expand without bound.
    if "<!DOCTYPE" in text:
        return {}
    _, setup, level, _ = PurePosixPath(inner).parts
    try:
        setups = ElementTree.fromstring(text).iter("ViewSetup")  # noqa: S314
        size = next(
            (s.find("voxelSize") for s in setups if int(s.findtext("id", "-1")) == int(setup[1:])), None
        )
        if size is None or level != "0":
            return {}
        values = (size.findtext("size") or "").split()
    except (ElementTree.ParseError, ValueError):
        return {}
    unit = size.findtext("unit")
    return known(**{a: positive(micrometres(v, unit)) for a, v in zip("xyz", values, strict=False)})
