"""Metadata of a written OME-Zarr 0.4 or 0.5: axes, levels, transformations, channels and their display windows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.images.colours import RGB
from im2im_zoo.images.formats.ome_zarr.pyramid import Level
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.target import NewImage

NGFF_NAMES = {"time": "t", "channel": "c", "z": "z", "y": "y", "x": "x"}

_COLOURS = ("00FFFF", "FF00FF", "FFFF00", "00FF00", "FF0000", "0000FF")
# Planes of the coarsest level that the display window is estimated from, a channel.
_WINDOW_PLANES = 16


def group_attributes(
    image: NewImage,
    axes: tuple[AxisName, ...],
    pyramid: list[Level],
    windows: list[dict[str, float]],
    version: str,
) -> dict[str, Any]:
    """Return the group's attributes: OME metadata where the version has it, and provenance beside it."""
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
        source = {"source": {"image": "../../"}} if image.within else {}
        ome["image-label"] = source if version == "0.5" else {"version": version, **source}
    else:
        ome["omero"] = _omero(image, windows)
    own = {ATTRIBUTES_KEY: dict(image.attributes)} if image.attributes else {}
    if version == "0.5":
        return {"ome": {"version": version, **ome}, **own}
    multiscale["version"] = version
    return {**ome, **own}


def _axis(axis: AxisName, image: NewImage) -> dict[str, str]:
    kind = axis if axis in ("time", "channel") else "space"
    described = {"name": NGFF_NAMES[axis], "type": kind}
    if axis == "time" and image.time_step_s is not None:
        described["unit"] = "second"
    if axis in image.pixel_size_um:
        described["unit"] = "micrometer"
    return described


def _transformations(axes: tuple[AxisName, ...], level: Level, image: NewImage) -> list[dict[str, Any]]:
    """Return the scale, and the translation to the centre of the first voxel: the image's own, and half a block of a reduced level."""
    steps = [
        (image.time_step_s or 1.0) if axis == "time" else image.pixel_size_um.get(axis, 1.0) for axis in axes
    ]
    scale = [step * factor for step, factor in zip(steps, level.factors, strict=True)]
    shift = [
        image.translation_um.get(axis, 0) + step * (factor - 1) / 2
        for axis, step, factor in zip(axes, steps, level.factors, strict=True)
    ]
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    return (
        [*transformations, {"type": "translation", "translation": shift}] if any(shift) else transformations
    )


def _omero(image: NewImage, windows: list[dict[str, float]]) -> dict[str, Any]:
    count = image.size("channel")
    # A label that was not given would be read back as a name.
    labels: list[dict[str, str]] = [{"label": n} for n in image.channel_names or ()] or [{}] * count
    colours = ["FFFFFF"] if count == 1 else [_COLOURS[i % len(_COLOURS)] for i in range(count)]
    if image.channel_names == RGB:
        # Shown as a picture: in its own colours, of 8 bits over the whole range of the type.
        colours = ["FF0000", "00FF00", "0000FF"]
        windows = [{**w, "start": 0.0, "end": 255.0} if image.dtype == np.uint8 else w for w in windows]
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


def display_windows(array: Any, axes: tuple[AxisName, ...]) -> list[dict[str, float]]:
    """Return the display window of each channel, from planes spread over the coarsest level."""
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
    """Return the range of the values, and the part of it between the percentiles 0.1 and 99.9."""
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
