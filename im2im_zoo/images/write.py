"""Writing an image: whole (`write_image`) or region by region (`create_image`); nothing half-written is ever seen."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from im2im_zoo.axes import AxisName, parse_axes
from im2im_zoo.errors import AxesError, ImageError
from im2im_zoo.images.atomic import KeptError, check_target, commit, discard, partial_path, writing_errors
from im2im_zoo.images.metadata import ATTRIBUTES_KEY, pixel_size_um
from im2im_zoo.images.open import image_suffixes, is_zarr_path
from im2im_zoo.images.raster import png_mode, write_png
from im2im_zoo.images.target import NewImage, Target, blocks


class ImageWriter:
    """An image that is being written; made by `create_image`, used with `with`.

    Leaving the `with` block normally completes the output and lets it appear at its path; leaving it by an exception
    removes what was written. Regions may come in any order, but must be disjoint; two threads must not write to the
    same chunk at once. Voxels that are never written are zero.

    Attributes:
        path: where the output appears.
        axes, shape, dtype: as `create_image` was given them.
        chunks: voxels that are stored together, in the order of `axes`; regions that align with them are written
            without reading back. Ones where every region is alike (TIFF, `.npy`).
    """

    def __init__(self, path: Path, image: NewImage, target: Target, *, overwrite: bool) -> None:
        self.path = path
        self.axes = image.axes
        self.shape = image.shape
        self.dtype = image.dtype
        self._nbytes = image.nbytes
        self._target = target
        self._overwrite = overwrite
        self._partial = partial_path(path)
        self._open = False
        self._order = tuple(image.axes.index(axis) for axis in target.axes)
        chunk_of = dict(zip(target.axes, target.chunks, strict=True))
        self.chunks = tuple(chunk_of[axis] for axis in image.axes)

    def write(self, region: Mapping[str, slice], block: NDArray[Any]) -> None:
        """Write one region.

        Args:
            region: axis -> slice; an axis that is left out is written from end to end.
            block: its voxels, in the writer's order of axes and of its dtype.

        Raises:
            ImageError: a region out of the image, a block of another shape or dtype, or a disk that is full.
        """
        if not self._open:
            raise ImageError(
                f"{self.path}: is not open for writing; write within `with create_image(...) as writer:`"
            )
        key = self._key(region)
        values = self._checked(np.asarray(block), key)
        with writing_errors(self.path, self._nbytes):
            self._target.write(tuple(key[i] for i in self._order), values.transpose(self._order))

    def __enter__(self) -> Self:
        try:
            with writing_errors(self.path, self._nbytes):
                self._target.create(self._partial)
        except BaseException:
            self._abandon()
            raise
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            self._abandon()
            return
        try:
            with writing_errors(self.path, self._nbytes):
                self._target.finish()
                commit(self._partial, self.path, overwrite=self._overwrite)
        except KeptError:
            raise
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._target.close()
        discard(self._partial)

    def _key(self, region: Mapping[str, slice]) -> tuple[slice, ...]:
        if unknown := sorted(set(region) - set(self.axes)):
            raise AxesError(
                f"{self.path}: the region names {', '.join(unknown)}, but the image has {', '.join(self.axes)}"
            )
        return tuple(
            self._span(axis, region.get(axis, slice(None)), size)
            for axis, size in zip(self.axes, self.shape, strict=True)
        )

    def _span(self, axis: str, span: slice, size: int) -> slice:
        start = 0 if span.start is None else int(span.start)
        stop = size if span.stop is None else int(span.stop)
        if span.step not in (None, 1) or not 0 <= start <= stop <= size:
            raise ImageError(
                f"{self.path}: the region {axis} {start}:{stop}:{span.step or 1} is not within the {size} voxels of "
                "the axis with step 1"
            )
        return slice(start, stop)

    def _checked(self, block: NDArray[Any], key: tuple[slice, ...]) -> NDArray[Any]:
        expected = tuple(k.stop - k.start for k in key)
        if block.shape != expected:
            raise ImageError(
                f"{self.path}: the block has the shape {block.shape}, but its region {expected} "
                f"({', '.join(self.axes)})"
            )
        floats = block.dtype.kind == "f" and self.dtype.kind == "f"
        if not floats and not np.can_cast(block.dtype, self.dtype, "safe"):
            raise ImageError(
                f"{self.path}: holds {self.dtype}, which cannot take the values of {block.dtype}; convert the block first"
            )
        return block.astype(self.dtype, copy=False)


def create_image(
    path: str | Path,
    *,
    axes: Sequence[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    pixel_size_um: Mapping[str, float] | None = None,
    channel_names: Sequence[str] | None = None,
    time_step_s: float | None = None,
    chunks: Sequence[int] | None = None,
    attributes: Mapping[str, Any] | None = None,
    ome_zarr_version: str = "0.5",
    labels: bool = False,
    overwrite: bool = False,
) -> ImageWriter:
    """A writer for an image that is made region by region, in bounded memory.

    Args:
        path: the ending chooses the format: .ome.zarr (.zarr), .ome.tif (.tiff), .tif (.tiff), .npy.
        axes: names or letters, in the order of the blocks to come; the file may store them in its own order.
        shape, dtype: of the image.
        pixel_size_um: space axis -> micrometres; axes that the image does not have are left out.
        channel_names: one a channel.
        time_step_s: seconds between time points.
        chunks: voxels to store together (OME-Zarr only), in the order of `axes`; default 1 to 4 MB.
        attributes: provenance to keep in the file (JSON values); `.npy` cannot.
        ome_zarr_version: "0.4" (zarr 2) or "0.5" (zarr 3).
        labels: the integers are labels: the pyramid takes the nearest and never averages.
        overwrite: replace an existing image, when the new one is complete.

    Raises:
        ImageError: an ending, dtype or axes that cannot be written, or a path that exists.
        AxesError: unknown or doubled axes.
    """
    target_path = Path(path).expanduser()
    image = _new_image(
        target_path, axes, shape, dtype, pixel_size_um, channel_names, time_step_s, attributes, labels
    )
    target = _target(target_path, image, chunks, ome_zarr_version)
    check_target(target_path, folder=is_zarr_path(target_path), overwrite=overwrite)
    return ImageWriter(target_path, image, target, overwrite=overwrite)


def write_image(
    image: xr.DataArray,
    path: str | Path,
    *,
    overwrite: bool = False,
    labels: bool = False,
    ome_zarr_version: str = "0.5",
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
    partial = partial_path(path)
    try:
        with writing_errors(path, image.nbytes):
            write_png(image, partial, mode)
            commit(partial, path, overwrite=overwrite)
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


def _target(path: Path, image: NewImage, chunks: Sequence[int] | None, version: str) -> Target:
    from im2im_zoo.images.flat_write import NpyTarget, TiffTarget
    from im2im_zoo.images.ome_zarr_write import OmeZarrTarget

    name = path.name.lower()
    if is_zarr_path(path):
        return OmeZarrTarget(path, image, version, _file_chunks(path, image, chunks))
    if name.endswith((".tif", ".tiff")):
        return TiffTarget(path, image)
    if name.endswith(".npy"):
        return NpyTarget(image)
    if name.endswith(".png"):
        raise ImageError(
            f"{path}: a PNG cannot be written region by region; write .ome.zarr, .ome.tif or .tif"
        )
    raise ImageError(f"{path}: cannot be written; use one of {', '.join(image_suffixes().writable)}")


def _file_chunks(path: Path, image: NewImage, chunks: Sequence[int] | None) -> tuple[int, ...] | None:
    """Chunks in the order of an OME-Zarr, from the caller's order."""
    if chunks is None:
        return None
    sides = [int(c) for c in chunks]
    if len(sides) != len(image.axes) or min(sides) < 1:
        raise ImageError(
            f"{path}: chunks {tuple(sides)} need one side above zero for each of {', '.join(image.axes)}"
        )
    of_axis = {a: min(c, n) for a, c, n in zip(image.axes, sides, image.shape, strict=True)}
    order: tuple[AxisName, ...] = ("time", "channel", "z", "y", "x")
    return tuple(of_axis[axis] for axis in image.in_order(order))


def _new_image(
    path: Path,
    axes: Sequence[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    sizes: Mapping[str, float] | None,
    channel_names: Sequence[str] | None,
    time_step_s: float | None,
    attributes: Mapping[str, Any] | None,
    labels: bool,
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
    )


def _stem(path: Path) -> str:
    """The name without any of the endings that are written."""
    endings = sorted(image_suffixes().writable, key=len, reverse=True)
    found = next((e for e in endings if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(found)] or path.name
