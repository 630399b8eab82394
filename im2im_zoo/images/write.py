"""Writing an image: whole (`write_image`) or region by region (`create_image`); nothing half-written is ever seen."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike

from im2im_zoo.core.axes import parse_axes
from im2im_zoo.core.errors import AxesError, ImageError
from im2im_zoo.images.atomic import (
    KeptError,
    check_target,
    check_work,
    commit,
    discard,
    hidden_path,
    writing_errors,
)
from im2im_zoo.images.labels_group import image_of_label, version_of_image
from im2im_zoo.images.metadata import ATTRIBUTES_KEY, pixel_size_um
from im2im_zoo.images.open import image_suffixes, is_zarr_path
from im2im_zoo.images.raster import png_mode, write_png
from im2im_zoo.images.target import NewImage, Target, blocks
from im2im_zoo.images.writer import ImageWriter

__all__ = ["ImageWriter", "create_image", "write_image"]


def create_image(
    path: str | Path,
    *,
    axes: Sequence[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    pixel_size_um: Mapping[str, float] | None = None,
    translation_um: Mapping[str, float] | None = None,
    channel_names: Sequence[str] | None = None,
    time_step_s: float | None = None,
    chunks: Sequence[int] | None = None,
    shards: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    ome_zarr_version: str | None = None,
    labels: bool = False,
    overwrite: bool = False,
    work: Path | None = None,
    reduced: Iterable[tuple[int, int]] = (),
    on_reduced: Callable[[int, int], None] | None = None,
) -> ImageWriter:
    """A writer for an image that is made region by region, in bounded memory.

    Args:
        path: the ending chooses the format: .ome.zarr (.zarr), .ome.tif (.tiff), .tif (.tiff), .npy. Any name in the
            group `labels` of an OME-Zarr image makes a label image of it: "cells.ome.zarr/labels/nuclei".
        axes: names or letters, in the order of the blocks to come; the file may store them in its own order.
        shape, dtype: of the image.
        pixel_size_um: space axis -> micrometres; axes that the image does not have are left out.
        translation_um: space axis -> micrometres of the first voxel's centre (OME-Zarr only). Axes without a pixel size
            are left out: OME-Zarr has one unit for both.
        channel_names: one a channel.
        time_step_s: seconds between time points.
        chunks: voxels to store together (OME-Zarr only), in the order of `axes`; default 1 to 4 MB.
        shards: voxels to keep in one file (OME-Zarr 0.5 only), multiples of `chunks`; default each chunk its own.
        attributes: provenance to keep in the file (JSON values); `.npy` cannot.
        ome_zarr_version: "0.4" (zarr 2) or "0.5" (zarr 3); default that of the image which labels are put into, or 0.5.
        labels: the integers are labels: the pyramid takes the nearest and never averages.
        overwrite: replace an existing image, when the new one is complete.
        work: where the output grows, on the disk of `path`. What is there from an earlier run is gone on with, and
            stays there after an exception. One run at a time may use it. Default: a hidden place of its own, removed
            after an exception.
        reduced: blocks of the pyramid (level, number) that an earlier run has told `on_reduced` of.
        on_reduced: called after each block of the pyramid that was made. As with regions, it is sure to survive a power
            cut only after `os.sync()`.

    Raises:
        ImageError: an ending, dtype or axes that cannot be written, a path that exists, or work that was begun on
            something else.
        AxesError: unknown or doubled axes.
    """
    target_path = Path(path).expanduser()
    within = image_of_label(target_path)
    image = _new_image(
        target_path,
        axes,
        shape,
        dtype,
        pixel_size_um,
        translation_um,
        channel_names,
        time_step_s,
        attributes,
        labels or within is not None,
        within is not None,
    )
    version = _version(target_path, within, ome_zarr_version)
    target = _target(target_path, image, chunks, shards, version, reduced, on_reduced)
    folder = within is not None or is_zarr_path(target_path)
    check_target(target_path, folder=folder, overwrite=overwrite)
    if work is not None:
        check_work(work, target_path)
    return ImageWriter(target_path, image, target, overwrite=overwrite, work=work)


def write_image(
    image: xr.DataArray,
    path: str | Path,
    *,
    overwrite: bool = False,
    labels: bool = False,
    ome_zarr_version: str | None = None,
) -> Path:
    """Write an image, lazy or in memory, block by block, with the pixel sizes, names and provenance that it carries.

    Args:
        image: dims are axis names; attrs and coords as `open_image` gives them.
        path: the ending chooses the format, as for `create_image`; also .png for uint8, uint16 and bool planes.
        overwrite, labels, ome_zarr_version: see `create_image`.

    Returns:
        The path.

    Raises:
        ImageError, AxesError: see `create_image`; or the source cannot be read.
    """
    target = Path(path).expanduser()
    if target.name.lower().endswith(".png"):
        return _write_png(image, target, overwrite)
    writer = create_image(
        target,
        axes=[str(d) for d in image.dims],
        shape=image.shape,
        dtype=image.dtype,
        pixel_size_um=pixel_size_um(image),
        translation_um=image.attrs.get("translation_um"),
        channel_names=_channel_names(image),
        time_step_s=image.attrs.get("time_step_s"),
        attributes=image.attrs.get(ATTRIBUTES_KEY),
        ome_zarr_version=ome_zarr_version,
        labels=labels,
        overwrite=overwrite,
    )
    with writer:
        for key in blocks(image.shape, writer.chunks, image.dtype.itemsize):
            region = {str(d): k for d, k in zip(image.dims, key, strict=True)}
            writer.write(region, image.isel(region).values)
    return target


def _write_png(image: xr.DataArray, path: Path, overwrite: bool) -> Path:
    mode = png_mode(path, image)
    check_target(path, folder=False, overwrite=overwrite)
    partial = hidden_path(path, "partial")
    try:
        with writing_errors(path, image.nbytes):
            write_png(image, partial, mode)
            commit(partial, path, folder=False, overwrite=overwrite)
    except KeptError:
        raise
    except BaseException:
        discard(partial)
        raise
    return path


def _channel_names(image: xr.DataArray) -> list[str] | None:
    if "channel" not in image.dims or "channel" not in image.coords:
        return None
    return [str(name) for name in image["channel"].values]


def _version(path: Path, within: Path | None, asked: str | None) -> str:
    """The version of OME-Zarr to write: labels have that of their image."""
    if within is None:
        return asked or "0.5"
    version = version_of_image(within)
    if asked not in (None, version):
        raise ImageError(
            f"{path}: {within.name} is OME-Zarr {version}, and labels of {asked} cannot be put into it; "
            "leave out the version"
        )
    return version


def _target(
    path: Path,
    image: NewImage,
    chunks: Sequence[int] | None,
    shards: Sequence[int] | None,
    version: str,
    reduced: Iterable[tuple[int, int]],
    on_reduced: Callable[[int, int], None] | None,
) -> Target:
    from im2im_zoo.images.flat_write import FlatTarget, NpyForm, TiffForm
    from im2im_zoo.images.ome_zarr_write import OmeZarrTarget, Storage

    name = path.name.lower()
    if image.within or is_zarr_path(path):
        small, large = _in_file(path, image, "chunks", chunks), _in_file(path, image, "shards", shards)
        return OmeZarrTarget(path, image, Storage(version, small, large), reduced, on_reduced)
    if name.endswith((".tif", ".tiff")):
        return FlatTarget(TiffForm(path, image))
    if name.endswith(".npy"):
        return FlatTarget(NpyForm(image))
    if name.endswith(".png"):
        raise ImageError(
            f"{path}: a PNG cannot be written region by region; write .ome.zarr, .ome.tif or .tif"
        )
    raise ImageError(f"{path}: cannot be written; use one of {', '.join(image_suffixes().writable)}")


def _in_file(path: Path, image: NewImage, word: str, sides: Sequence[int] | None) -> tuple[int, ...] | None:
    """Sides of chunks or shards in the order of an OME-Zarr, from the caller's order."""
    from im2im_zoo.images.ome_zarr_write import ORDER

    if sides is None:
        return None
    each = [int(side) for side in sides]
    if len(each) != len(image.axes) or min(each) < 1:
        raise ImageError(
            f"{path}: {word} {tuple(each)} need one side above zero for each of {', '.join(image.axes)}"
        )
    of_axis = dict(zip(image.axes, each, strict=True))
    return tuple(of_axis[axis] for axis in image.in_order(ORDER))


def _new_image(
    path: Path,
    axes: Sequence[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    sizes: Mapping[str, float] | None,
    translation: Mapping[str, float] | None,
    channel_names: Sequence[str] | None,
    time_step_s: float | None,
    attributes: Mapping[str, Any] | None,
    labels: bool,
    within: bool,
) -> NewImage:
    """The checked description of what is to be written."""
    names, sides, kind = parse_axes(axes), tuple(int(n) for n in shape), np.dtype(dtype).newbyteorder("=")
    if "batch" in names:
        raise AxesError(
            f"{path}: an image file has no batch axis; write one image of the batch: .isel(batch=0)"
        )
    if len(names) != len(sides) or min(sides, default=0) < 1:
        raise ImageError(
            f"{path}: the shape {sides} needs one size above zero for each of {', '.join(names)}"
        )
    if kind.kind not in "biuf" or kind.itemsize > 8:
        raise ImageError(f"{path}: {kind} cannot be written; convert it to an integer or float type")
    if labels and kind.kind not in "iu":
        raise ImageError(f"{path}: labels are integers, not {kind}")
    known: dict[str, float] = {
        a: float(s) for a, s in (sizes or {}).items() if a in names and a in ("z", "y", "x")
    }
    wrong = [f"{a} {s}" for a, s in known.items() if not (np.isfinite(s) and s > 0)]
    if wrong or (time_step_s is not None and not time_step_s > 0):
        raise ImageError(
            f"{path}: pixel sizes and time step are above zero, not {', '.join(wrong) or time_step_s}"
        )
    shifts = {a: float(s) for a, s in (translation or {}).items() if a in known and s}
    if not all(np.isfinite(s) for s in shifts.values()):
        raise ImageError(f"{path}: the translation must be finite, not {shifts}")
    if channel_names is not None and len(channel_names) != (
        dict(zip(names, sides, strict=True)).get("channel")
    ):
        raise ImageError(
            f"{path}: {len(channel_names)} channel names ({', '.join(map(str, channel_names))}) do not fit the shape "
            f"{sides} of {', '.join(names)}"
        )
    try:
        json.dumps(dict(attributes or {}))
    except (TypeError, ValueError) as error:
        raise ImageError(f"{path}: attributes must be values that JSON has: {error}") from error
    return NewImage(
        names,
        sides,
        kind,
        _stem(path),
        known,
        None if channel_names is None else tuple(str(n) for n in channel_names),
        None if time_step_s is None or "time" not in names else float(time_step_s),
        dict(attributes or {}),
        labels,
        shifts,
        within,
    )


def _stem(path: Path) -> str:
    """The name without any of the endings that are written."""
    endings = sorted(image_suffixes().writable, key=len, reverse=True)
    found = next((e for e in endings if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(found)] or path.name
