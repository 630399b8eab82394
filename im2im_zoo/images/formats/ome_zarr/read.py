"""Reading OME-Zarr 0.4 and 0.5 (and the axes of earlier ones), a level of one, or a plain zarr array; on the disk or the web."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AXES, AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.address import Address, Place, place_within
from im2im_zoo.images.formats.ome_zarr.contents import MARKS, describe_non_image, is_zarr, ome_of
from im2im_zoo.images.large_chunks import COPIES, GZIP_COPIES, Index
from im2im_zoo.images.lazy import Key, MissingChunks, OpenedSource, Source
from im2im_zoo.images.metadata import (
    ATTRIBUTES_KEY,
    ImageMetadata,
    as_number,
    micrometres,
    names_or_none,
    positive,
    seconds,
)

_SHORT_NAMES = {"t": "time", "c": "channel"}
# Before 0.3 the axes were fixed by the specification.
_AXES_BEFORE_0_3 = ("t", "c", "z", "y", "x")


def web_state(address: Address) -> str:
    """Return the SHA-256 of an address and of the metadata of the image there; it stays the same if only voxels change.

    Raises:
        ImageError: the address has no image, or the server cannot be reached.
    """
    from im2im_zoo.images.formats.ome_zarr.web_store import WebStore

    store = WebStore(address)
    _, level = _open(address, store)
    if level:
        _node(address, store, level)
    return store.state


def read_zipped_ome_zarr(path: Path, inner: str = "") -> tuple[Source, ImageMetadata]:
    """Open an image in a zipped OME-Zarr, as `read_ome_zarr` does in a folder.

    Args:
        path: the zip.
        inner: the way to the image within; "" for the zarr that was zipped.

    Raises:
        ImageError: as of `read_ome_zarr`; a damaged zip, or one with entries that may be hostile.
    """
    from im2im_zoo.images.formats.ome_zarr.zip_store import CheckedZipStore, ZipPlace

    store = CheckedZipStore(path)
    try:
        return read_ome_zarr(ZipPlace(path.absolute().as_posix()) / store.top() / inner, store)
    finally:
        store.close()


def read_ome_zarr(path: Place, store: Any = None) -> tuple[Source, ImageMetadata]:
    """Open a multiscale group at its full resolution, or an array: a level of a multiscale, or a plain one.

    Args:
        path: the place.
        store: of a zip, if it is within one.

    Raises:
        ImageError: the place is a plate, a container of several images or another group; the message lists the images within.
    """
    import zarr

    node, level = _open(path, store)
    if isinstance(node, zarr.Array):
        multiscale, level, omero, written = _parent_of(path, store)
        if multiscale is None:
            return _source(path, node), _plain(node)
        return _source(path, node), _metadata(path, multiscale, level, node.shape, omero, written)
    attributes = dict(node.attrs)
    array = _node(path, store, level)
    omero, written = ome_of(attributes).get("omero"), attributes.get(ATTRIBUTES_KEY)
    multiscale = ome_of(attributes)["multiscales"][0]
    return _source(path / level, array), _metadata(path, multiscale, level, array.shape, omero, written)


def _open(path: Place, store: Any = None) -> tuple[Any, str]:
    """Return the array or the multiscale group at a place, and the path of the group's first level.

    Args:
        path: the place.
        store: through which it is read, if there is one already.
    """
    import zarr

    if isinstance(path, Path) and not is_zarr(path):
        raise ImageError(
            f"{path}: is no zarr: it has none of {', '.join(MARKS)}; give the folder that holds one of them"
        )
    node = _node(path, store)
    if isinstance(node, zarr.Array):
        return node, ""
    ome = ome_of(dict(node.attrs))
    multiscales = ome.get("multiscales")
    if not multiscales:
        raise ImageError(describe_non_image(path, ome, () if store is None else getattr(store, "names", ())))
    try:
        level = _full_resolution(path, multiscales[0], store)
    except (KeyError, IndexError, TypeError) as error:
        raise ImageError(
            f"{path}: its multiscales metadata names no level; open an array within by its path"
        ) from error
    place_within(path, level)
    if isinstance(path, Path) and not is_zarr(path / level):
        raise ImageError(f"{path}: its metadata names the level {level!r}, which is not there; copy it again")
    return node, level


def _full_resolution(path: Place, multiscale: Mapping[str, Any], store: Any) -> str:
    """Return the path of the level of the smallest scale, in whatever order they are listed; of the most voxels if scales do not tell.

    Raises:
        KeyError, IndexError, TypeError: metadata without levels.
    """
    datasets = multiscale["datasets"]
    levels = [str(dataset["path"]) for dataset in datasets]
    scales = [_scale_product(dataset) for dataset in datasets]
    known = [scale for scale in scales if scale is not None]
    if len(levels) == 1 or (len(known) == len(levels) and known.count(min(known)) == 1):
        return levels[0] if len(levels) == 1 else levels[known.index(min(known))]
    for level in levels:
        place_within(path, level)
    there = [n for n in levels if not isinstance(path, Path) or is_zarr(path / n)]
    sizes = {level: math.prod(_node(path, store, level).shape) for level in there}
    return max(levels, key=lambda level: sizes.get(level, 0))


def _scale_product(dataset: Mapping[str, Any]) -> float | None:
    """Return the product of a level's scales along all axes; None if it states none, or something else."""
    steps = dataset.get("coordinateTransformations") or ()
    found = [step.get("scale") for step in steps if isinstance(step, Mapping) and step.get("type") == "scale"]
    numbers = [as_number(v) for v in found[0]] if len(found) == 1 and isinstance(found[0], list) else []
    known = [n for n in numbers if n is not None]
    return math.prod(known) if known and len(known) == len(numbers) else None


class _NoZarrError(ImageError):
    """An address without a zarr."""


def _node(path: Place, store: Any = None, level: str = "") -> Any:
    """Return the group or array at a place, or below it; an address is read through the store, if there is one already.

    Raises:
        _NoZarrError: the address has no zarr.
    """
    import zarr

    if isinstance(path, Path):
        return zarr.open(path / level, mode="r")
    from im2im_zoo.images.formats.ome_zarr.web_store import WebStore
    from im2im_zoo.images.formats.ome_zarr.zip_store import ZipPlace

    if isinstance(path, ZipPlace):
        inner = "/".join(part for part in (path.inner, level) if part)
        try:
            return zarr.open(store, mode="r", path=inner)
        except FileNotFoundError as error:
            raise _NoZarrError(
                f"{path / level}: there is no zarr (none of {', '.join(MARKS)}); check what the zip holds"
            ) from error
    try:
        return zarr.open(store or WebStore(path), mode="r", path=level)
    except FileNotFoundError as error:
        raise _NoZarrError(
            f"{path / level}: there is no zarr (none of {', '.join(MARKS)}), or the server does not show it; check the address: it is "
            "that of the folder, not of a page about it"
        ) from error


def open_zarr_array(path: Place) -> tuple[Any, Any]:
    """Return the array, and a function that closes its file, if it is within a zip."""
    import zarr

    from im2im_zoo.images.formats.ome_zarr.checked_store import CheckedStore, is_blosc

    if isinstance(path, Path):
        array = zarr.open_array(path, mode="r")
        if is_blosc(array):
            array = zarr.open_array(CheckedStore(path, read_only=True), mode="r")
        return array, lambda: None
    from im2im_zoo.images.formats.ome_zarr.web_store import WebStore
    from im2im_zoo.images.formats.ome_zarr.zip_store import CheckedZipStore, ZipPlace

    if isinstance(path, ZipPlace) and path.archive is not None:
        zipped = CheckedZipStore(path.archive)
        array = zarr.open_array(zipped, mode="r", path=path.inner)
        zipped.checks_blosc = is_blosc(array)
        return array, zipped.close
    store = WebStore(path)
    array = zarr.open_array(store, mode="r")
    store.checks_blosc = is_blosc(array)
    return array, lambda: None


def _source(path: Place, array: Any) -> Source:
    if np.dtype(array.dtype).kind not in "biuf":
        raise ImageError(f"{path}: holds {array.dtype} values, which are no image of numbers")
    chunks = tuple(array.chunks)
    compressors = {type(c).__name__.removesuffix("Codec").lower() for c in array.compressors}
    copies = GZIP_COPIES if compressors & {"gzip", "zlib"} else COPIES
    from im2im_zoo.images.formats.ome_zarr.zip_store import ZipPlace

    kind = _LocalZarr if isinstance(path, Path) else _ZippedZarr if isinstance(path, ZipPlace) else _Zarr
    return kind(
        path, tuple(array.shape), np.dtype(array.dtype), open_zarr_array, path, chunks=chunks, copies=copies
    )


class _Zarr(OpenedSource):
    """Voxels of a zarr array."""

    def _decode(self, array: Any, index: Index, region: Key) -> Any:
        from zarr.core.sync import sync

        # Reading through the array copies a decoded chunk once more, which takes too much where a chunk is large.
        values = None if array.shards else sync(_decode_chunk(array.async_array, index))
        return array[region] if values is None else values


async def _decode_chunk(array: Any, index: Index) -> Any:
    """Return the values of a whole chunk of an asynchronous zarr array; None if it is not stored."""
    from zarr.core.buffer import default_buffer_prototype

    buffers = default_buffer_prototype()
    stored = await (array.store_path / array.metadata.encode_chunk_key(index)).get(prototype=buffers)
    if stored is None:
        return None
    specification = array.metadata.get_chunk_spec(index, array.config, prototype=buffers)
    (decoded,) = await array.codec_pipeline.decode([(stored, specification)])
    return decoded.as_numpy_array()


class _LocalZarr(_Zarr):
    """Voxels of a zarr array on the disk, a `ChunkedSource`."""

    def missing_chunks(self, used: Sequence[NDArray[np.bool_]]) -> MissingChunks:
        from im2im_zoo.images.formats.ome_zarr.missing_chunks import count_missing_chunks

        array, _ = open_zarr_array(self.path)
        return count_missing_chunks(Path(str(self.path)), array, used)


class _ZippedZarr(_Zarr):
    """Voxels of a zarr array in a zip, a `ChunkedSource`."""

    def missing_chunks(self, used: Sequence[NDArray[np.bool_]]) -> MissingChunks:
        from im2im_zoo.images.formats.ome_zarr.missing_chunks import count_missing_keys
        from im2im_zoo.images.formats.ome_zarr.zip_store import ZipPlace, chunk_keys

        array, close = open_zarr_array(self.path)
        try:
            inner = self.path.inner if isinstance(self.path, ZipPlace) else ""
            return count_missing_keys(chunk_keys(array.store, inner), array, used)
        finally:
            close()


def _parent_of(path: Place, store: Any = None) -> tuple[Mapping[str, Any] | None, str, Any, Any]:
    """Return the multiscale that an array is a level of, from the folders above, the level's path in it, omero and provenance."""
    from im2im_zoo.images.formats.ome_zarr.zip_store import ZipPlace

    full: Place = path.resolve() if isinstance(path, Path) else path
    for parent in cast(Sequence[Place], list(full.parents)[:3]):
        try:
            if isinstance(parent, Path) and not is_zarr(parent):
                break
            if isinstance(parent, ZipPlace) and parent.archive is None:
                break
            attributes = dict(_node(parent, store if isinstance(parent, ZipPlace) else None).attrs)
        except (_NoZarrError, ValueError):  # a web server may answer with a page instead
            if isinstance(parent, Path):
                raise
            break
        level = full.relative_to(parent).as_posix()
        for multiscale in ome_of(attributes).get("multiscales") or ():
            if any(str(d.get("path")) == level for d in multiscale.get("datasets", ())):
                return multiscale, level, ome_of(attributes).get("omero"), attributes.get(ATTRIBUTES_KEY)
    return None, "", None, None


def _plain(array: Any) -> ImageMetadata:
    """Return the metadata of a plain array: axes only from zarr 3's dimension names, or xarray's attribute in zarr 2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return ImageMetadata(
        axes=_axis_names(names or (), len(array.shape)), axes_stated_by="its dimension names"
    )


def _axis_names(names: Any, ndim: int) -> tuple[AxisName, ...] | None:
    words = [_SHORT_NAMES.get(str(n).lower(), str(n).lower()) for n in names]
    found = tuple(a for w in words for a in AXES if a == w)
    return found if len(found) == ndim and len(set(found)) == ndim else None


def _metadata(
    path: Place, multiscale: Mapping[str, Any], level: str, shape: tuple[int, ...], omero: Any, written: Any
) -> ImageMetadata:
    stated = multiscale.get("axes") or _AXES_BEFORE_0_3
    described = [a if isinstance(a, Mapping) else {"name": a} for a in stated]
    axes = _axis_names([_name(a) for a in described], len(shape))
    if axes is None:
        return ImageMetadata(axes_stated_by="its OME-Zarr metadata")
    scale, translation = _transform(path, multiscale, level, len(shape))
    sizes, shifts, step = {}, {}, None
    for axis, about, size, shift in zip(
        axes, described, scale or (), translation if scale else (), strict=False
    ):
        if axis in ("z", "y", "x"):
            micrometres_each = positive(micrometres(size, about.get("unit")))
            offset = micrometres(shift, about.get("unit"))
            if micrometres_each:
                sizes[str(axis)] = micrometres_each
            if offset:
                shifts[str(axis)] = offset
        elif axis == "time":
            step = positive(seconds(size, about.get("unit")))
    channels = omero.get("channels") if isinstance(omero, Mapping) else None
    labels = [c.get("label") for c in channels or () if isinstance(c, Mapping)]
    count = shape[axes.index("channel")] if "channel" in axes else 0
    return ImageMetadata(
        axes,
        "its OME-Zarr metadata",
        pixel_size_um=sizes,
        translation_um=shifts,
        time_step_s=step,
        channel_names=names_or_none(labels, count) if count else None,
        attributes=dict(written) if isinstance(written, Mapping) else {},
    )


def _name(about: Mapping[str, Any]) -> str:
    """Return an axis's type where that is more specific than its name: a channel axis may have any name."""
    kind, name = about.get("type"), str(about.get("name", ""))
    return str(kind) if kind in ("channel", "time") else name


def _transform(
    path: Place, multiscale: Mapping[str, Any], level: str, ndim: int
) -> tuple[list[float] | None, list[float]]:
    """Return scale and translation of a level: its own transformations, then those of the whole multiscale; no scale if none is stated."""
    dataset: Mapping[str, Any] = next(
        (d for d in multiscale.get("datasets", ()) if str(d.get("path")) == level), {}
    )
    scale, shift, is_stated = [1.0] * ndim, [0.0] * ndim, False
    # A scale of the whole multiscale alone says nothing of a level that may be a reduced one.
    own = len(multiscale.get("datasets", ())) == 1 or _scale_product(dataset) is not None
    steps = [
        *(dataset.get("coordinateTransformations") or ()),
        *(multiscale.get("coordinateTransformations") or ()),
    ]
    for step in steps:
        kind = step.get("type")
        values = [as_number(v) for v in step.get(kind) or ()] if kind in ("scale", "translation") else []
        if not values:
            continue
        numbers = [v for v in values if v is not None]
        if len(numbers) != ndim:
            raise ImageError(
                f"{path}: the {kind} of level {level!r} is {values}, but the image has {ndim} axes: "
                "correct its coordinateTransformations"
            )
        if kind == "scale":
            is_stated = own
            scale = [s * v for s, v in zip(scale, numbers, strict=True)]
            shift = [s * v for s, v in zip(shift, numbers, strict=True)]
        else:
            shift = [s + v for s, v in zip(shift, numbers, strict=True)]
    return scale if is_stated else None, shift
