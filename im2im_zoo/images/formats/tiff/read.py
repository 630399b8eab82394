"""Reading TIFF: OME-TIFF, ImageJ hyperstacks, tifffile's own, and plain ones. Writes nothing."""

import logging
import math
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.inner_path import leads_out
from im2im_zoo.images.lazy import MappedSource, OpenedSource, Source
from im2im_zoo.images.metadata import (
    ATTRIBUTES_KEY,
    ImageMetadata,
    as_number,
    known,
    micrometres,
    names_or_none,
    positive,
    provenance,
    seconds,
)

# S is the samples of a pixel: the channels of RGB.
_AXES: dict[str, AxisName] = {"T": "time", "C": "channel", "S": "channel", "Z": "z", "Y": "y", "X": "x"}
# Resolution tags of plain TIFFs are mostly for printing (72 dpi is 353 µm); a microscope's pixel is smaller.
_LARGEST_PLAUSIBLE_PIXEL_UM = 10.0


def read_tiff(path: Path, image: int | None = None) -> tuple[Source, ImageMetadata]:
    """Open one image of a TIFF.

    Args:
        path: the file.
        image: which of its images (series), counted from 0; None is the only one. Smaller ones beside it
            (thumbnails, labels of slides) do not count.

    Raises:
        ImageError: the file is no TIFF, damaged or cut short, or has several images and none is named.
    """
    try:
        with _quiet_tifffile(), tifffile.TiffFile(path) as tif:
            _check_files(path, tif)
            index = _choose(path, tif, image)
            series = tif.series[index]
            _check_complete(path, tif, series)
            return _source(path, index, series), _metadata(tif, series, index)
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise ImageError(
            f"{path}: is not a valid TIFF file ({error}); it may be cut short or of another format: copy or export it again"
        ) from error


def open_series(path: Path, index: int) -> tuple[Any, Callable[[], None]]:
    """Return the voxels of a series as a zarr array, and the function that closes the file."""
    import zarr

    tif = tifffile.TiffFile(path)
    try:
        with _quiet_tifffile():
            _check_files(path, tif)
            store = tif.series[index].aszarr(level=0)
        return zarr.open_array(store, mode="r", zarr_format=2), tif.close
    except BaseException:
        tif.close()
        raise


def _check_files(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a set of files of which one is not in the folder of this one, before tifffile opens it."""
    for name in _other_files(path, tif):
        if leads_out(name):
            raise ImageError(
                f"{path}: its metadata name the file {name!r}, which is outside of its folder and is not read; put the files of "
                "the set into one folder"
            )


def _other_files(path: Path, tif: tifffile.TiffFile) -> Iterator[str]:
    """Yield the names of the files of a set: of an OME-TIFF in its OME-XML, of an NDTiff in the index beside it."""
    if tif.is_ndtiff and (path.parent / "NDTiff.index").is_file():
        yield from (str(entry[1]) for entry in tifffile.read_ndtiff_index(path.parent / "NDTiff.index"))
    text = tif.ome_metadata if tif.is_ome else None
    if not text:
        return
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 tifffile parses the same
    except ElementTree.ParseError:
        return  # nor will tifffile read it
    yield from (element.get("FileName", "") for element in root.iter())


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's log about a damaged file off the terminal: the ImageError reports it once, with the file."""
    logger, thread = logging.getLogger("tifffile"), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(of_others)
    try:
        yield
    finally:
        logger.removeFilter(of_others)


def _source(path: Path, index: int, series: tifffile.TiffPageSeries) -> Source:
    dtype = np.dtype(series.dtype)
    page = series.keyframe
    if series.dataoffset is not None and page.is_memmappable and not series.is_multifile:
        stored = dtype.newbyteorder(page.parent.byteorder)
        return MappedSource(path, tuple(series.shape), stored, int(series.dataoffset))
    chunks = _chunks(tuple(series.shape), tuple(page.shape), tuple(page.chunks))
    return OpenedSource(path, tuple(series.shape), dtype, open_series, path, index, chunks=chunks)


def _chunks(
    shape: tuple[int, ...], page: tuple[int, ...], segment: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the voxels of a tile or strip along each axis of a series of pages; None if it is not laid out as its pages are."""
    if len(segment) != len(page) or shape[len(shape) - len(page) :] != page:
        return None
    return (1,) * (len(shape) - len(page)) + tuple(min(s, n) for s, n in zip(segment, page, strict=True))


def _choose(path: Path, tif: tifffile.TiffFile, image: int | None) -> int:
    count = len(tif.series)
    if count == 0:
        raise ImageError(f"{path}: this TIFF holds no image")
    if image is not None:
        if image >= count:
            raise ImageError(f"{path}: has no image {image}: it has {count}, counted from 0")
        return image
    rivals = [i for i, s in enumerate(tif.series) if s.size * 2 >= tif.series[0].size]
    if len(rivals) > 1:
        listed = ", ".join(f"#{i} {tif.series[i].axes} {tif.series[i].shape}" for i in rivals[:20])
        raise ImageError(f"{path}: holds {len(rivals)} images: {listed}; name one, as in '{path.name}#0'")
    return 0


def _check_complete(path: Path, tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """Refuse a file whose missing parts tifffile would fill up with zeros."""
    if series.dtype is None or series.dtype.kind not in "biuf":
        raise ImageError(f"{path}: holds {series.dtype} values, which are no image of numbers")
    pages = series.pages
    if series.kind == "ome" and any(page is None for page in pages):
        raise ImageError(
            f"{path}: its OME-XML names planes that are not there; put the other files of the set into the same folder"
        )
    if series.is_multifile:
        return
    page, end = pages[-1], 0
    if page is not None and 0 < len(page.dataoffsets) < (pieces := math.prod(page.chunked)):
        raise ImageError(
            f"{path}: its header claims {' x '.join(map(str, page.shape))} voxels a plane, that is {pieces} tiles or strips, "
            f"but the file lists {len(page.dataoffsets)}; it is damaged: copy or export it again"
        )
    if series.dataoffset is not None:
        end = int(series.dataoffset) + int(np.prod(series.shape)) * series.dtype.itemsize
    elif page is not None and len(page.dataoffsets):
        end = max(int(o) + int(n) for o, n in zip(page.dataoffsets, page.databytecounts, strict=False))
    if end > tif.filehandle.size:
        raise ImageError(
            f"{path}: is cut short: its voxels end at byte {end}, but it has {tif.filehandle.size} bytes; copy it again"
        )


def _metadata(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, index: int) -> ImageMetadata:
    if tif.is_ome and series.kind == "ome":
        return _from_ome(tif.ome_metadata or "", series, index)
    if tif.is_imagej and series.kind == "imagej":
        return _from_imagej(tif, series)
    return _from_tags(tif, series)


def _axes(letters: str, shape: tuple[int, ...]) -> tuple[AxisName, ...] | None:
    """Return the names of tifffile's letters; None if a letter has no meaning (Q, I, ...) or two mean the same."""
    names = [_AXES.get(letter) for letter in letters]
    found = tuple(name for name in names if name is not None)
    return found if len(found) == len(shape) and len(set(found)) == len(found) else None


def _count(axes: tuple[AxisName, ...] | None, shape: tuple[int, ...]) -> int:
    """Return the number of channels; 1 where the file has no axis for them."""
    return shape[axes.index("channel")] if axes and "channel" in axes else 1


def _singletons(series: tifffile.TiffPageSeries) -> frozenset[AxisName]:
    """Return the axes that OME-XML and ImageJ always have, and that tifffile leaves out when their length is 1."""
    return frozenset(_AXES[a] for a in "TCZ" if a in series.get_axes(False) and a not in series.axes)


def _from_ome(text: str, series: tifffile.TiffPageSeries, index: int) -> ImageMetadata:
    axes = _axes(series.axes, series.shape)
    # An entity could expand without bound; no OME-XML needs a document type.
    images = [] if "<!DOCTYPE" in text else ElementTree.fromstring(text).findall("{*}Image")  # noqa: S314
    pixels = images[index].find("{*}Pixels") if index < len(images) else None
    if pixels is None:
        return ImageMetadata(axes, "its OME-XML")

    def size(axis: str) -> float | None:
        unit = pixels.get(f"PhysicalSize{axis}Unit", "µm")
        return positive(micrometres(pixels.get(f"PhysicalSize{axis}"), unit))

    step = seconds(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s"))
    names = [channel.get("Name") for channel in pixels.findall("{*}Channel")]
    return ImageMetadata(
        axes,
        "its OME-XML",
        pixel_size_um=known(z=size("Z"), y=size("Y"), x=size("X")),
        time_step_s=positive(step),
        channel_names=names_or_none(names, _count(axes, series.shape)),
        attributes=provenance(images[index].findtext("{*}Description")),
        singletons=_singletons(series),
    )


def _from_imagej(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> ImageMetadata:
    meta = tif.imagej_metadata or {}
    axes = _axes(series.axes, series.shape)
    unit = meta.get("unit")
    per_unit_y, per_unit_x = _per_unit(tif, "YResolution"), _per_unit(tif, "XResolution")

    def pixel(per_unit: float | None) -> float | None:
        size = positive(micrometres(1 / per_unit, unit)) if per_unit else None
        # "inch" is what ImageJ shows for a picture's printing resolution.
        inches = str(unit).lower() in ("inch", "in", "inches")
        return None if inches and size and size > _LARGEST_PLAUSIBLE_PIXEL_UM else size

    return ImageMetadata(
        axes,
        "its ImageJ metadata",
        pixel_size_um=known(
            z=positive(micrometres(meta.get("spacing"), meta.get("zunit", unit))),
            y=pixel(per_unit_y),
            x=pixel(per_unit_x),
        ),
        time_step_s=positive(seconds(meta.get("finterval"), meta.get("tunit", "s"))),
        channel_names=_imagej_channel_names(meta.get("Labels"), series.axes, series.shape),
        attributes=provenance(meta.get("Info")),
        singletons=_singletons(series),
    )


def _imagej_channel_names(labels: object, letters: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Return channel names from ImageJ's labels of planes: only if every plane of a channel has the same label."""
    if not isinstance(labels, list) or "S" in letters:
        return None
    if "C" not in letters:
        return names_or_none(labels[:1], 1) if len(set(labels)) == 1 else None
    planes = tuple(shape[: letters.index("Y")])
    if len(labels) != int(np.prod(planes)):
        return None
    by_channel = np.moveaxis(np.array(labels, object).reshape(planes), letters.index("C"), 0)
    rows = [set(row.ravel().tolist()) for row in by_channel]
    names = [next(iter(row)) for row in rows if len(row) == 1]
    return names_or_none(names, len(rows)) if len(set(names)) == len(rows) else None


def _from_tags(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> ImageMetadata:
    """Return the metadata of a plain TIFF: axes if tifffile wrote them, resolution tags if they are plausible for a microscope."""
    axes = _axes(series.axes, series.shape)
    shaped = (tif.shaped_metadata or ({},))[0] if series.kind == "shaped" else {}
    written = shaped.get(ATTRIBUTES_KEY)
    if isinstance(written, dict) and isinstance(written.get("pixel_size_um"), dict):
        sizes = {str(a): s for a, v in written["pixel_size_um"].items() if (s := positive(as_number(v)))}
        return ImageMetadata(
            axes,
            "its JSON description",
            pixel_size_um=sizes,
            time_step_s=positive(as_number(written.get("time_step_s"))),
            channel_names=names_or_none(written.get("channel_names") or (), _count(axes, series.shape)),
            attributes=dict(written.get("attributes") or {}),
        )
    tag = tif.pages.first.tags.get("ResolutionUnit")
    unit = {2: "inch", 3: "cm"}.get(int(tag.value) if tag else 0)
    sizes = {}
    for axis, name in (("y", "YResolution"), ("x", "XResolution")):
        per_unit = _per_unit(tif, name)
        size = positive(micrometres(1 / per_unit, unit)) if per_unit else None
        if size and size <= _LARGEST_PLAUSIBLE_PIXEL_UM:
            sizes[axis] = size
    return ImageMetadata(axes, "its TIFF tags", pixel_size_um=sizes)


def _per_unit(tif: tifffile.TiffFile, name: str) -> float | None:
    """Return the pixels per unit of a resolution tag."""
    tag = tif.pages.first.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or 0 in tag.value:
        return None
    return float(tag.value[0]) / float(tag.value[1])
