"""NRRD, through pynrrd: raw voxels are read where they lie, compressed ones are decoded whole at the first read."""

import bz2
import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import MappedSource, OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata, known, micrometres, positive, seconds
from im2im_zoo.images.optional_library import import_reader

_SPACE_KINDS = ("domain", "space")
_COLOUR_KINDS = (
    "rgb-color",
    "rgba-color",
    "hsv-color",
    "xyz-color",
    "list",
    "vector",
    "point",
    "3-color",
    "4-color",
)


_READERS: dict[str, Callable[[Any], Any]] = {
    "gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.BZ2File, "bz2": bz2.BZ2File,
}  # fmt: skip
# Spellings of the types of numbers in the format's definition.
_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32", "uint32_t"),
    "int64": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "uint64": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}  # fmt: skip


class Nrrd(ImageFormat):
    """NRRD of one file."""

    name = "NRRD"
    reads = (".nrrd",)
    extra = "nrrd"

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open an image; its axes come from the header's kinds, labels or space directions, the fastest one first."""
        nrrd = import_reader("nrrd", "nrrd", path, "NRRD")
        with path.open("rb") as file:
            header = nrrd.read_header(file)
            offset = file.tell()
        if "data file" in header or "datafile" in header:
            raise ImageError(
                f"{path}: its voxels are in another file, which is not read; save it as one .nrrd file"
            )
        if any(int(header.get(key, 0)) for key in ("line skip", "lineskip", "byte skip", "byteskip")):
            raise ImageError(
                f"{path}: has bytes to skip before its voxels, which is not read; save it again as .nrrd"
            )
        shape = tuple(int(n) for n in reversed(header["sizes"]))
        dtype, encoding = _dtype(path, header), str(header["encoding"]).lower()
        metadata = _metadata(header, shape)
        if encoding == "raw":
            if offset + int(np.prod(shape, dtype=object)) * dtype.itemsize > path.stat().st_size:
                raise ImageError(
                    f"{path}: is cut short: it has fewer voxels than its header states; copy it again"
                )
            return MappedSource(path, shape, dtype, offset), metadata
        if encoding not in _READERS:
            raise ImageError(
                f"{path}: has the encoding {encoding!r}, which is not read; save it as raw or gzip"
            )
        return OpenedSource(
            path, shape, dtype, decode_nrrd, path, shape, dtype, encoding, offset, chunks=shape
        ), metadata


def decode_nrrd(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], encoding: str, offset: int
) -> tuple[Any, Callable[[], None]]:
    """Return all voxels, the slowest axis first, and a function that does nothing, as there is nothing to close."""
    with path.open("rb") as file:
        file.seek(offset)
        with _READERS[encoding](file) as reader:
            # No more than the header states, whatever a hostile file unpacks to.
            content = reader.read(int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return np.frombuffer(content, dtype).reshape(shape), lambda: None


def _dtype(path: Path, header: Mapping[str, Any]) -> np.dtype[Any]:
    word = str(header["type"]).lower()
    name = next((name for name, words in _TYPES.items() if word in words), None)
    if name is None:
        raise ImageError(f"{path}: holds {word} values, which are no image of numbers")
    dtype = np.dtype(name)
    if dtype.itemsize > 1 and header.get("endian") not in ("big", "little"):
        raise ImageError(f"{path}: its header lacks the order of bytes (endian); save it again as .nrrd")
    return dtype.newbyteorder(">" if header.get("endian") == "big" else "<")


def _metadata(header: Mapping[str, Any], shape: tuple[int, ...]) -> ImageMetadata:
    kinds = [str(kind).lower() for kind in header.get("kinds", ())]
    directions = header.get("space directions")
    lengths = _lengths(directions, len(shape))
    labels = [str(label).lower().strip() for label in header.get("labels", ())]
    names = _names(kinds, lengths, labels, len(shape))
    units = [str(unit).strip('" ') for unit in header.get("units", ())] or [""] * len(shape)
    space_units = [str(unit).strip('" ') for unit in header.get("space units", ())]
    spacings = [float(s) for s in header.get("spacings", ())] or [float("nan")] * len(shape)
    sizes: dict[str, float | None] = {}
    step = None
    for number, name in enumerate(names):
        if name in ("x", "y", "z"):
            of_space = space_units[0] if space_units else ""
            length, unit = (
                (lengths[number], of_space) if lengths[number] else (spacings[number], units[number])
            )
            sizes[name] = positive(micrometres(length, unit or of_space))
        elif name == "time":
            step = positive(seconds(spacings[number], units[number]))
    in_order = tuple(reversed(names))
    stated = tuple(name for name in in_order if name is not None)
    return ImageMetadata(
        stated if len(set(stated)) == len(shape) else None,
        "its header",
        partial_axes=in_order,
        pixel_size_um=known(**sizes),
        time_step_s=step,
    )


def _lengths(directions: Any, ndim: int) -> list[float | None]:
    """Return the length of one step along each axis; None for an axis that is none of space."""
    if directions is None:
        return [None] * ndim
    vectors = [None if row is None else np.asarray(row, float) for row in directions]
    return [None if v is None or np.isnan(v).any() else float(np.linalg.norm(v)) for v in vectors]


def _names(
    kinds: Sequence[str], lengths: Sequence[float | None], labels: Sequence[str], ndim: int
) -> list[AxisName | None]:
    """Return the name of each axis, the fastest first; None where the header does not tell."""
    by_label: dict[str, AxisName] = {
        "x": "x", "y": "y", "z": "z", "t": "time", "time": "time", "c": "channel", "channel": "channel",
    }  # fmt: skip
    if len(labels) == ndim and all(label in by_label for label in labels):
        return [by_label[label] for label in labels]
    space = iter(("x", "y", "z"))
    names: list[AxisName | None] = []
    for number in range(ndim):
        kind = kinds[number] if number < len(kinds) else ""
        if kind in _SPACE_KINDS or (not kind and lengths[number] is not None):
            names.append(next(space, None))  # type: ignore[arg-type]
        elif kind in _COLOUR_KINDS:
            names.append("channel")
        else:
            names.append("time" if kind == "time" else None)
    return ["x", "y"] if ndim == 2 and not any(names) else names
