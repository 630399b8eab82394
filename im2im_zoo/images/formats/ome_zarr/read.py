"""Reading OME-Zarr 0.4 and 0.5 (and the axes of earlier ones), a level of one, or a plain zarr array; on the disk or the web."""

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


def read_ome_zarr(path: Place) -> tuple[Source, ImageMetadata]:
    """Open a multiscale group at its full resolution, or an array: a level of a multiscale, or a plain one.

    Raises:
        ImageError: the place is a plate, a container of several images or another group; the message lists the images within.
    """
    import zarr

    node, level = _open(path)
    if isinstance(node, zarr.Array):
        multiscale, level, omero, written = _parent_of(path)
        if multiscale is None:
            return _source(path, node), _plain(node)
        return _source(path, node), _metadata(path, multiscale, level, node.shape, omero, written)
    attributes = dict(node.attrs)
    array = _node(path, level=level)
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
        raise ImageError(describe_non_image(path, ome))
    try:
        level = str(multiscales[0]["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError) as error:
        raise ImageError(
            f"{path}: its multiscales metadata names no level; open an array within by its path"
        ) from error
    place_within(path, level)
    if isinstance(path, Path) and not is_zarr(path / level):
        raise ImageError(f"{path}: its metadata names the level {level!r}, which is not there; copy it again")
    return node, level


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

    try:
        return zarr.open(store or WebStore(path), mode="r", path=level)
    except FileNotFoundError as error:
        raise _NoZarrError(
            f"{path / level}: there is no zarr (none of {', '.join(MARKS)}), or the server does not show it; check the address: it is "
            "that of the folder, not of a page about it"
        ) from error


def open_zarr_array(path: Place) -> tuple[Any, Any]:
    """Return the array, and a function that does nothing, as there is nothing to close."""
    import zarr

    from im2im_zoo.images.formats.ome_zarr.checked_store import CheckedStore, is_blosc

    if isinstance(path, Path):
        array = zarr.open_array(path, mode="r")
        if is_blosc(array):
            array = zarr.open_array(CheckedStore(path, read_only=True), mode="r")
        return array, lambda: None
    from im2im_zoo.images.formats.ome_zarr.web_store import WebStore

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
    kind = _LocalZarr if isinstance(path, Path) else _Zarr
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


def _parent_of(path: Place) -> tuple[Mapping[str, Any] | None, str, Any, Any]:
    """Return the multiscale that an array is a level of, from the folders above, the level's path in it, omero and provenance."""
    full: Place = path.resolve() if isinstance(path, Path) else path
    for parent in cast(Sequence[Place], list(full.parents)[:3]):
        try:
            if isinstance(parent, Path) and not is_zarr(parent):
                break
            attributes = dict(_node(parent).attrs)
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
    for axis, about, size, shift in zip(axes, described, scale, translation, strict=True):
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
) -> tuple[list[float], list[float]]:
    """Return scale and translation of a level: its own transformations, then those of the whole multiscale."""
    dataset: Mapping[str, Any] = next(
        (d for d in multiscale.get("datasets", ()) if str(d.get("path")) == level), {}
    )
    scale, shift = [1.0] * ndim, [0.0] * ndim
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
            scale = [s * v for s, v in zip(scale, numbers, strict=True)]
            shift = [s * v for s, v in zip(shift, numbers, strict=True)]
        else:
            shift = [s + v for s, v in zip(shift, numbers, strict=True)]
    return scale, shift
