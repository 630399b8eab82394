"""Writing OME-Zarr 0.4 and 0.5: level 0 by regions, the pyramid block by block at the end. Reads no other file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.axes import AxisName
from im2im_zoo.errors import ImageError
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.pyramid import Level, default_chunks, halve, levels
from im2im_zoo.images.target import NewImage, blocks

VERSIONS = ("0.4", "0.5")

_ORDER: tuple[AxisName, ...] = ("time", "channel", "z", "y", "x")
_NGFF_NAMES = {"time": "t", "channel": "c", "z": "z", "y": "y", "x": "x"}
_COLOURS = ("00FFFF", "FF00FF", "FFFF00", "00FF00", "FF0000", "0000FF")
# Planes of the coarsest level that the display window is estimated from, a channel.
_WINDOW_PLANES = 16


class OmeZarrTarget:
    """An OME-Zarr in the making, its axes in the order t, c, z, y, x that the format prescribes."""

    def __init__(
        self, path: Path, image: NewImage, version: str, chunks: tuple[int, ...] | None = None
    ) -> None:
        if version not in VERSIONS:
            raise ImageError(
                f"{path}: OME-Zarr {version!r} is not written; choose one of {', '.join(VERSIONS)}"
            )
        if not {"y", "x"} <= set(image.axes) or "index" in image.axes:
            raise ImageError(
                f"{path}: an OME-Zarr has y, x and may have time, channel, z; the image has {', '.join(image.axes)}: "
                "write .npy"
            )
        self._image = image
        self._version = version
        self.axes = image.in_order(_ORDER)
        self._shape = tuple(image.size(axis) for axis in self.axes)
        self.chunks = chunks or default_chunks(self.axes, self._shape, image.dtype.itemsize)
        self._group: Any = None
        self._array: Any = None

    def create(self, partial: Path) -> None:
        import zarr

        self._group = zarr.open_group(partial, mode="w-", zarr_format=3 if self._version == "0.5" else 2)
        self._array = self._create_level("0", self._shape)

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        self._array[key] = block

    def finish(self) -> None:
        pyramid = levels(self.axes, self._shape, self._image.pixel_size_um)
        coarse = self._array
        for number, level in enumerate(pyramid[1:], start=1):
            fine, coarse = coarse, self._create_level(str(number), level.shape)
            self._reduce(fine, coarse, level)
        windows = [] if self._image.labels else _windows(coarse, self.axes)
        self._group.attrs.update(_attributes(self._image, self.axes, pyramid, windows, self._version))

    def close(self) -> None:
        """Nothing is held open."""

    def _reduce(self, fine: Any, coarse: Any, level: Level) -> None:
        for key in blocks(coarse.shape, coarse.chunks, 1, limit=1):
            source = tuple(
                slice(k.start * f, min(k.stop * f, n))
                for k, f, n in zip(key, level.step, fine.shape, strict=True)
            )
            coarse[key] = halve(fine[source], level.step, average=not self._nearest)

    @property
    def _nearest(self) -> bool:
        return self._image.labels or self._image.dtype.kind == "b"

    def _create_level(self, name: str, shape: tuple[int, ...]) -> Any:
        import zarr.codecs

        shuffled = self._image.dtype.itemsize > 1
        common = {
            "shape": shape,
            "dtype": self._image.dtype,
            "chunks": tuple(min(c, n) for c, n in zip(self.chunks, shape, strict=True)),
            "fill_value": 0,
        }
        if self._version == "0.4":
            from numcodecs import Blosc

            compressor = Blosc(cname="zstd", clevel=3, shuffle=1 if shuffled else 0)
            encoding = {"name": "v2", "separator": "/"}
            return self._group.create_array(
                name, **common, compressors=compressor, chunk_key_encoding=encoding
            )
        codec = zarr.codecs.BloscCodec(
            cname="zstd",
            clevel=3,
            typesize=self._image.dtype.itemsize,
            shuffle="shuffle" if shuffled else "noshuffle",
        )
        names = [_NGFF_NAMES[a] for a in self.axes]
        return self._group.create_array(name, **common, compressors=codec, dimension_names=names)


def _attributes(
    image: NewImage,
    axes: tuple[AxisName, ...],
    pyramid: list[Level],
    windows: list[dict[str, float]],
    version: str,
) -> dict[str, Any]:
    """The group's attributes: OME metadata where the version has it, and provenance beside it."""
    multiscale = {
        "name": image.name,
        "type": "nearest" if image.labels or image.dtype.kind == "b" else "mean",
        "axes": [_axis(axis, image) for axis in axes],
        "datasets": [
            {"path": str(number), "coordinateTransformations": _transformations(axes, level, image)}
            for number, level in enumerate(pyramid)
        ],
    }
    ome: dict[str, Any] = {"multiscales": [multiscale]}
    if image.labels:
        ome["image-label"] = {} if version == "0.5" else {"version": version}
    else:
        ome["omero"] = _omero(image, windows)
    own = {ATTRIBUTES_KEY: dict(image.attributes)} if image.attributes else {}
    if version == "0.5":
        return {"ome": {"version": version, **ome}, **own}
    multiscale["version"] = version
    return {**ome, **own}


def _axis(axis: AxisName, image: NewImage) -> dict[str, str]:
    kind = axis if axis in ("time", "channel") else "space"
    described = {"name": _NGFF_NAMES[axis], "type": kind}
    if axis == "time" and image.time_step_s is not None:
        described["unit"] = "second"
    if axis in image.pixel_size_um:
        described["unit"] = "micrometer"
    return described


def _transformations(axes: tuple[AxisName, ...], level: Level, image: NewImage) -> list[dict[str, Any]]:
    """Scale and, for a reduced level, the translation to the centre of its first block of voxels."""
    steps = [
        (image.time_step_s or 1.0) if axis == "time" else image.pixel_size_um.get(axis, 1.0) for axis in axes
    ]
    scale = [step * factor for step, factor in zip(steps, level.factors, strict=True)]
    shift = [step * (factor - 1) / 2 for step, factor in zip(steps, level.factors, strict=True)]
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    return (
        [*transformations, {"type": "translation", "translation": shift}] if any(shift) else transformations
    )


def _omero(image: NewImage, windows: list[dict[str, float]]) -> dict[str, Any]:
    count = image.size("channel")
    # A label that nobody gave would be read back as a name.
    labels: list[dict[str, str]] = [{"label": n} for n in image.channel_names or ()] or [{}] * count
    colours = ["FFFFFF"] if count == 1 else [_COLOURS[i % len(_COLOURS)] for i in range(count)]
    channels = [
        {
            **label,
            "color": colour,
            "active": True,
            "coefficient": 1,
            "family": "linear",
            "inverted": False,
            "window": window,
        }
        for label, colour, window in zip(labels, colours, windows, strict=True)
    ]
    return {"channels": channels, "rdefs": {"model": "greyscale" if count == 1 else "color"}}


def _windows(array: Any, axes: tuple[AxisName, ...]) -> list[dict[str, float]]:
    """What to display of each channel, from planes spread over the coarsest level."""
    found = []
    for channel in range(array.shape[axes.index("channel")] if "channel" in axes else 1):
        fixed: dict[str, int] = {"channel": channel}
        stacked = [(a, array.shape[axes.index(a)]) for a in ("time", "z") if a in axes]
        planes = int(np.prod([n for _, n in stacked], dtype=object)) if stacked else 1
        values = []
        for plane in np.unique(np.linspace(0, planes - 1, min(planes, _WINDOW_PLANES)).astype(int)):
            at = np.unravel_index(int(plane), [n for _, n in stacked]) if stacked else ()
            where = fixed | {a: int(i) for (a, _), i in zip(stacked, at, strict=True)}
            values.append(np.asarray(array[tuple(where.get(a, slice(None)) for a in axes)]).ravel())
        found.append(_window(np.concatenate(values)))
    return found


def _window(values: NDArray[Any]) -> dict[str, float]:
    """Range of the values, and the part of it between the percentiles 0.1 and 99.9."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if finite.size == 0:
        return {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    low, high = float(finite.min()), float(finite.max())
    start, end = (float(v) for v in np.percentile(finite.astype(np.float64), (0.1, 99.9)))
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        low, high = float(np.iinfo(values.dtype).min), float(np.iinfo(values.dtype).max)
    return {
        "min": low,
        "max": max(high, low + 1e-6),
        "start": start,
        "end": end if end > start else start + 1.0,
    }
