"""Reading TIFF: OME-TIFF, ImageJ hyperstacks, tifffile's own, and plain ones. Writes nothing."""

import logging
import math
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName, axes_letters
from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.inner_path import leads_out
from im2im_zoo.images.address import Place
from im2im_zoo.images.colours import RGB
from im2im_zoo.images.lazy import Key, MappedSource, OpenedSource, Source
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
# Kinds of tifffile for images that no metadata sets apart.
_PAGE_KINDS = ("shaped", "uniform", "generic")
# Values of the tag ResolutionUnit; 4 and 5 are an extension that no printing program writes.
_RESOLUTION_UNITS = {2: "inch", 3: "cm", 4: "mm", 5: "um"}


def read_tiff(path: Path, image: int | None = None) -> tuple[Source, ImageMetadata]:
    """Open one image of a TIFF.

    Args:
        path: the file.
        image: which of its images (series), counted from 0; None is the only one, or all of a stack that was written page by page,
            whose images are all alike. Smaller ones beside it (thumbnails, labels of slides) do not count.

    Raises:
        ImageError: the file is no TIFF, damaged or cut short, or has several images and none is named.
    """
    try:
        with _quiet_tifffile(), tifffile.TiffFile(path) as tif:
            _check_files(path, tif)
            if image is None and (count := count_alike(tif)) > 1:
                return _open_pages(path, tif, count)
            index = _choose(path, tif, image)
            series = tif.series[index]
            _check_complete(path, tif, series)
            return _merged(path, _source(path, index, series), series, _metadata(tif, series, index))
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


def open_pages(path: Path, count: int) -> tuple[Any, Callable[[], None]]:
    """Return the voxels of the first series, one behind the other along a first axis, and the function that closes the file."""
    tif = tifffile.TiffFile(path)
    return PagesArray(tif, count), tif.close


class PagesArray:
    """Series of equal shape, of which one is opened at a time; indexed by slices."""

    def __init__(self, tif: tifffile.TiffFile, count: int) -> None:
        self._tif = tif
        self._count = count
        self._shape = tuple(tif.series[0].shape)
        self._dtype = np.dtype(tif.series[0].dtype)

    def __getitem__(self, key: Any) -> Any:
        import zarr

        numbers = range(self._count)[key[0]]
        sizes = [len(range(*k.indices(n))) for k, n in zip(key[1:], self._shape, strict=True)]
        found = np.empty((len(numbers), *sizes), self._dtype)
        for at, number in enumerate(numbers):
            with _quiet_tifffile(), self._tif.series[number].aszarr(level=0) as store:
                found[at] = zarr.open_array(store, mode="r", zarr_format=2)[tuple(key[1:])]
        return found


def count_alike(tif: tifffile.TiffFile) -> int:
    """Return the number of images of a TIFF if all are alike and no metadata states that each is one of its own; else 0."""
    described = {(s.shape, str(s.dtype), s.axes) for s in tif.series}
    separate = tif.is_ome or tif.is_lsm or any(s.kind not in _PAGE_KINDS for s in tif.series)
    return 0 if separate or len(described) != 1 else len(tif.series)


def _open_pages(path: Path, tif: tifffile.TiffFile, count: int) -> tuple[Source, ImageMetadata]:
    """Open a stack that was written page by page, each with a header of its own, along a first axis that has no name."""
    first = tif.series[0]
    for series in tif.series:
        _check_complete(path, tif, series)
    shape, dtype = (count, *first.shape), np.dtype(first.dtype)
    page = first.keyframe
    segment = _chunks(tuple(first.shape), tuple(page.shape), tuple(page.chunks)) or tuple(first.shape)
    source = OpenedSource(path, shape, dtype, open_pages, path, count, chunks=(1, *segment))
    single = _metadata(tif, first, 0)
    return source, ImageMetadata(
        axes_stated_by=single.axes_stated_by,
        partial_axes=(None, *(_AXES.get(a) for a in first.axes)),
        axes_note=f"holds {count} images of {' x '.join(map(str, first.shape))} ({first.axes.lower()}) that were written page by page",
        axes_alternative=f"or name one of them, as in '{path.name}#0'",
        pixel_size_um=single.pixel_size_um,
        time_step_s=single.time_step_s,
    )


def _merged(
    path: Path, source: Source, series: tifffile.TiffPageSeries, metadata: ImageMetadata
) -> tuple[Source, ImageMetadata]:
    """Return an image of channels whose pixels have samples (RGB) with one axis for both; other images as they are."""
    letters, shape = str(series.axes), tuple(series.shape)
    names = [_AXES.get(a) for a in letters if a != "S"]
    axes = tuple(name for name in names if name is not None)
    if not {"C", "S"} <= set(letters) or not len(set(axes)) == len(axes) == len(letters) - 1:
        return source, metadata
    c, s = letters.index("C"), letters.index("S")
    channels, samples = shape[c], shape[s]
    words = list(metadata.channel_names or ()) if len(metadata.channel_names or ()) == channels else []
    parts = ("red", "green", "blue", "alpha")[:samples] if samples in (3, 4) else range(samples)
    merged = tuple(f"{words[n] if words else n} {part}" for n in range(channels) for part in parts)
    letters_lower = axes_letters(axes)
    last = channels * samples - 1
    return MergedSource(source, c, s), replace(
        metadata,
        axes=axes,
        channel_names=merged,
        partial_axes=(),
        axes_note="",
        must_choose=f"{metadata.axes_stated_by} says {letters}: {channels} channels (C), and in each pixel of a channel {samples} samples (S), "
        f"as of RGB colours; choose what to use of these {last + 1} with --channels (channels=), by names such as {merged[0]!r} and {merged[-1]!r} or by "
        f"number, counted from 0 to {last}; or take all {last + 1} as channels with --axes {letters_lower}",
    )


@dataclass(frozen=True, slots=True)
class MergedSource:
    """Voxels of an image whose axis of samples is merged into that of channels, a `Source`: the samples of channel 0 first."""

    source: Source
    channel: int
    samples: int

    @property
    def path(self) -> Place:
        return self.source.path

    @property
    def shape(self) -> tuple[int, ...]:
        sizes = list(self.source.shape)
        sizes[self.channel] *= sizes[self.samples]
        return tuple(n for axis, n in enumerate(sizes) if axis != self.samples)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.source.dtype

    def read(self, key: Key) -> NDArray[Any]:
        count = self.source.shape[self.samples]
        at = self.channel - (self.samples < self.channel)
        wanted = range(self.shape[at])[key[at]]
        inner = list(key)
        first, last = min(wanted[0], wanted[-1]) // count, max(wanted[0], wanted[-1]) // count
        inner[at] = slice(first, last + 1, 1)
        inner.insert(self.samples, slice(0, count, 1))
        values = np.moveaxis(self.source.read(tuple(inner)), self.samples, -1)
        values = np.moveaxis(values, -1, at + 1)
        flat = values.reshape(*values.shape[:at], -1, *values.shape[at + 2 :])
        return np.take(flat, [n - first * count for n in wanted], axis=at)


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
    metadata = _stated(tif, series, index)
    if "S" in series.axes:
        # The samples are the channels; OME-XML and ImageJ state a channel of length 1 beside them.
        metadata = replace(metadata, singletons=metadata.singletons - {"channel"})
    if metadata.channel_names is None and "C" not in series.axes and "S" in series.axes:
        return replace(metadata, channel_names=_sample_names(series))
    return metadata


def _sample_names(series: tifffile.TiffPageSeries) -> tuple[str, ...] | None:
    """Return the names of the samples of a pixel: colours by the tag of the photometric interpretation, and transparency."""
    page, count = series.keyframe, series.shape[series.axes.index("S")]
    # YCbCr is decoded to RGB.
    colours = {1: ("grey",), 2: RGB, 6: RGB, 5: ("cyan", "magenta", "yellow", "black")}
    names = colours.get(int(page.photometric), ())
    extra = tuple(map(int, page.extrasamples or ()))
    # 1 and 2 are transparency; a fourth sample of which nothing is stated is it in practice, too.
    alpha = ("alpha",) if count == len(names) + 1 and (set(extra) & {1, 2} or names == RGB) else ()
    found = (*names, *alpha)
    return found if len(found) == count else None


def _stated(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, index: int) -> ImageMetadata:
    if tif.is_ome and series.kind == "ome":
        return _from_ome(tif.ome_metadata or "", series, index)
    if tif.is_imagej and series.kind == "imagej":
        return _from_imagej(tif, series)
    return _from_tags(tif, series)


def _partly(letters: str, shape: tuple[int, ...], said: str) -> dict[str, Any]:
    """Return the fields of `ImageMetadata` about axes of which not all are known, for messages; {} if all are."""
    if _axes(letters, shape) is not None or len(letters) != len(shape):
        return {}
    unknown = [a for a in letters if a not in _AXES]
    named = [f"{a} ({tifffile.TIFF.AXES_NAMES[a]})" for a in unknown if a not in "QI"]
    note = f"{said} states the axes {', '.join(named)}, which are none of a model's" if named else ""
    return {"partial_axes": tuple(_AXES.get(a) for a in letters), "axes_note": note}


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
    partly = _partly(series.axes, series.shape, "its OME-XML")
    if pixels is None:
        return ImageMetadata(axes, "its OME-XML", **partly)

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
        **partly,
    )


def _from_imagej(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> ImageMetadata:
    meta = tif.imagej_metadata or {}
    axes = _axes(series.axes, series.shape)
    unit = meta.get("unit")
    per_unit_y, per_unit_x = _per_unit(tif, "YResolution"), _per_unit(tif, "XResolution")

    # ImageJ states the units of y and z only where they differ from that of x.
    def pixel(per_unit: float | None, unit: object) -> float | None:
        size = positive(micrometres(1 / per_unit, unit)) if per_unit else None
        # "inch" is what ImageJ shows for a picture's printing resolution.
        inches = str(unit).lower() in ("inch", "in", "inches")
        return None if inches and size and size > _LARGEST_PLAUSIBLE_PIXEL_UM else size

    return ImageMetadata(
        axes,
        "its ImageJ metadata",
        pixel_size_um=known(
            z=positive(micrometres(meta.get("spacing"), meta.get("zunit", unit))),
            y=pixel(per_unit_y, meta.get("yunit", unit)),
            x=pixel(per_unit_x, unit),
        ),
        time_step_s=positive(seconds(meta.get("finterval"), meta.get("tunit", "s"))),
        channel_names=_imagej_channel_names(meta.get("Labels"), series.axes, series.shape),
        attributes=provenance(meta.get("Info")),
        singletons=_singletons(series),
        **_partly(series.axes, series.shape, "its ImageJ metadata"),
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
    if series.kind == "lsm":
        return _from_lsm(tif.lsm_metadata or {}, axes, series)
    partly = _partly(series.axes, series.shape, "the file")
    tag = tif.pages.first.tags.get("ResolutionUnit")
    unit = _RESOLUTION_UNITS.get(int(tag.value) if tag else 0)
    sizes = {}
    for axis, name in (("y", "YResolution"), ("x", "XResolution")):
        per_unit = _per_unit(tif, name)
        size = positive(micrometres(1 / per_unit, unit)) if per_unit else None
        if size and (unit in ("mm", "um") or size <= _LARGEST_PLAUSIBLE_PIXEL_UM):
            sizes[axis] = size
    return ImageMetadata(axes, "its TIFF tags", pixel_size_um=sizes, **partly)


def _from_lsm(
    meta: Mapping[str, Any], axes: tuple[AxisName, ...] | None, series: tifffile.TiffPageSeries
) -> ImageMetadata:
    """Return the metadata of Zeiss's LSM, whose lengths are in metres."""

    def size(axis: str) -> float | None:
        return positive(micrometres(meta.get(f"VoxelSize{axis}"), "m"))

    names = (meta.get("ChannelColors") or {}).get("ColorNames") or ()
    return ImageMetadata(
        axes,
        "its LSM metadata",
        pixel_size_um=known(z=size("Z"), y=size("Y"), x=size("X")),
        time_step_s=positive(as_number(meta.get("TimeIntervall"))),
        channel_names=names_or_none(names, _count(axes, series.shape)),
        singletons=_singletons(series),
        **_partly(series.axes, series.shape, "its LSM metadata"),
    )


def _per_unit(tif: tifffile.TiffFile, name: str) -> float | None:
    """Return the pixels per unit of a resolution tag."""
    tag = tif.pages.first.tags.get(name)
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2 or 0 in tag.value:
        return None
    return float(tag.value[0]) / float(tag.value[1])
