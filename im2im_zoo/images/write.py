"""Writing an image: whole (`write_image`) or region by region (`create_image`); an output appears when it is complete."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
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
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.labels_group import image_of_label, version_of_image
from im2im_zoo.images.metadata import ATTRIBUTES_KEY, pixel_size_um
from im2im_zoo.images.registry import format_of, format_to_open, image_suffixes, suffix_of
from im2im_zoo.images.target import NewImage, Storage, blocks
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
    check: Callable[[Path], None] = lambda _: None,
) -> ImageWriter:
    """Return a writer for an image that is written region by region, in bounded memory.

    Args:
        path: the suffix chooses the format: .ome.zarr (.zarr), .ome.tif (.tiff), .tif (.tiff), .npy. Any name in the
            group `labels` of an OME-Zarr image creates a label image of it: "cells.ome.zarr/labels/nuclei".
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
        work: where the output grows, on the disk of `path`. An output that an earlier run left there is resumed, and
            stays there after an exception. One run at a time may use it. Default: a hidden sibling of `path`, removed
            after an exception.
        reduced: blocks of the pyramid (level, number) that an earlier run has passed to `on_reduced`.
        on_reduced: called after each block of the pyramid that was written. As with regions, it is sure to survive a power
            cut only after `os.sync()`.
        check: called with the finished output, before it appears at its path; what it raises keeps it from there.

    Raises:
        ImageError: a suffix, dtype or axes that cannot be written, a path that exists, or work on another image.
        AxesError: unknown or doubled axes.
    """
    target_path = Path(path).expanduser()
    within = image_of_label(target_path)
    described = NewImage(
        axes=parse_axes(axes),
        shape=tuple(int(n) for n in shape),
        dtype=np.dtype(dtype).newbyteorder("="),
        name=target_path.name[: len(target_path.name) - len(suffix_of(target_path))],
        pixel_size_um=dict(pixel_size_um or {}),
        channel_names=None if channel_names is None else tuple(str(n) for n in channel_names),
        time_step_s=time_step_s,
        attributes=dict(attributes or {}),
        labels=labels or within is not None,
        translation_um=dict(translation_um or {}),
        within=within is not None,
    )
    image = _checked(target_path, described)
    storage = Storage(
        chunks=None if chunks is None else tuple(int(n) for n in chunks),
        shards=None if shards is None else tuple(int(n) for n in shards),
        ome_zarr_version=_version(target_path, within, ome_zarr_version),
        reduced=reduced,
        on_reduced=on_reduced,
    )
    image_format = _format(target_path, within)
    target = image_format.create(target_path, image, storage)
    check_target(target_path, folder=image_format.is_folder, overwrite=overwrite)
    if work is not None:
        check_work(work, target_path)
    return ImageWriter(target_path, image, target, overwrite=overwrite, work=work, check=check)


def write_image(
    image: xr.DataArray,
    path: str | Path,
    *,
    overwrite: bool = False,
    labels: bool = False,
    ome_zarr_version: str | None = None,
    check: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write an image, lazy or in memory, block by block, with the pixel sizes, names and provenance that it carries.

    Args:
        image: dims are axis names; attrs and coords as `open_image` gives them.
        path: the suffix chooses the format, as for `create_image`; also .png for uint8, uint16 and bool planes.
        overwrite, labels, ome_zarr_version, check: see `create_image`.

    Returns:
        The path.

    Raises:
        ImageError, AxesError: see `create_image`; or the source cannot be read.
    """
    target = Path(path).expanduser()
    image_format = _format(target, image_of_label(target))
    if not image_format.by_region:
        return _write_whole(image_format, image, target, overwrite, check)
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
        check=check,
    )
    with writer:
        for key in blocks(image.shape, writer.chunks, image.dtype.itemsize):
            region = {str(d): k for d, k in zip(image.dims, key, strict=True)}
            writer.write(region, image.isel(region).values)
    return target


def _write_whole(
    image_format: ImageFormat, image: xr.DataArray, path: Path, overwrite: bool, check: Callable[[Path], None]
) -> Path:
    write = image_format.writer(path, image)
    check_target(path, folder=image_format.is_folder, overwrite=overwrite)
    partial = hidden_path(path, "partial")
    try:
        with writing_errors(path, image.nbytes):
            write(partial)
            check(partial)
            commit(partial, path, folder=image_format.is_folder, overwrite=overwrite)
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
    """Return the version of OME-Zarr to write: labels have that of their image."""
    if within is None:
        return asked or "0.5"
    version = version_of_image(within)
    if asked not in (None, version):
        raise ImageError(
            f"{path}: {within.name} is OME-Zarr {version}, and labels of {asked} cannot be put into it; "
            "leave out the version"
        )
    return version


def _format(path: Path, within: Path | None) -> ImageFormat:
    """Return the format to write; label images have that of the image which they are put into."""
    found = format_of(path if within is None else within, "write")
    if found is None and within is not None:
        found = format_to_open(within)
    if found is None:
        raise ImageError(f"{path}: cannot be written; use one of {', '.join(image_suffixes().writable)}")
    return found


def _checked(path: Path, image: NewImage) -> NewImage:
    """Return the image with the metadata that its axes have.

    Raises:
        ImageError, AxesError: values that no format takes.
    """
    names, sides, kind = image.axes, image.shape, image.dtype
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
    if image.labels and kind.kind not in "iu":
        raise ImageError(
            f"{path}: the labels are {kind}, but label images hold integers; convert them, for example to uint16"
        )
    known = {str(a): float(s) for a, s in image.pixel_size_um.items() if a in names and a in ("z", "y", "x")}
    wrong = [f"{a} {s}" for a, s in known.items() if not (np.isfinite(s) and s > 0)]
    step = image.time_step_s
    if wrong or (step is not None and not step > 0):
        raise ImageError(
            f"{path}: pixel sizes and time step must be above zero, not {', '.join(wrong) or step}"
        )
    shifts = {str(a): float(s) for a, s in image.translation_um.items() if a in known and s}
    if not all(np.isfinite(s) for s in shifts.values()):
        raise ImageError(f"{path}: the translation must be finite, not {shifts}")
    channels = image.channel_names
    if channels is not None and ("channel" not in names or len(channels) != image.size("channel")):
        raise ImageError(
            f"{path}: {len(channels)} channel names ({', '.join(channels)}) do not fit the shape {sides} of {', '.join(names)}"
        )
    try:
        json.dumps(image.attributes)
    except (TypeError, ValueError) as error:
        raise ImageError(f"{path}: attributes must be values that JSON has: {error}") from error
    step = None if step is None or "time" not in names else float(step)
    return replace(image, pixel_size_um=known, time_step_s=step, translation_um=shifts)
