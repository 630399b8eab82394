"""Reading of the frames of an image, its prediction and its labels, reduced so that any size fits into memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.contingency import as_labels
from im2im_zoo.evaluation.painting import PERCENTILES, Colour, channel_colours, contrast_limits
from im2im_zoo.images import open_image
from im2im_zoo.images.address import Place
from im2im_zoo.images.colours import is_colour, names_of
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.overview import label_names, reduce_image, stated_colours
from im2im_zoo.instances.grouping import INSTANCES

SIZE = 2048  # pixels of the longer side of a picture
SMALLEST_SIZE = 16
MOST_CHANNELS = 6
_FRAMES = 48  # planes times time points on a page
_TIMES = 6  # of them, if there are planes as well
_PAGE_PIXELS = 24_000_000  # of all pictures of one image on a page
_MOVING = ("time", "z")
_COMPARED = ("time", "z", "y", "x")

Plane = int | Literal["middle", "max"]


@dataclass(frozen=True, slots=True)
class ViewSource:
    """An image to show.

    Attributes:
        path: file, zarr folder or address, as of `open_image`.
        axes: letters, where the file does not state its axes.
        channels: which to show, by name or index; default: all.
    """

    path: str | Place
    axes: str | None = None
    channels: Sequence[int | str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ImageLayer:
    """Intensities of all frames of a view.

    Attributes:
        title: "input" or "prediction".
        name: of the file.
        values: (frame, channel, y, x), float32.
        names: of the channels; () if there is one without a name.
        colours: of the channels.
        limits: values that are black, and in full colour, of each channel.
        own_colours: whether the channels are red, green and blue.
        notes: what is shown and what is not.
    """

    title: str
    name: str
    values: NDArray[np.float32]
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    limits: tuple[tuple[float, float], ...]
    own_colours: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LabelLayer:
    """Labels of all frames of a view, as (frame, y, x).

    Attributes:
        title: "labels", or "predicted labels".
        name: of the file.
        values: whole numbers, 0 for the background.
        objects: labels that are seen in some frame.
    """

    title: str
    name: str
    values: NDArray[Any]
    objects: int


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """Frames of an image that are shown, each a plane at a time point.

    Attributes:
        images: the input, then the prediction if it has intensities.
        labels: label images to lay over them.
        times, planes: of the frames, which are all their combinations, times outermost; planes is () for a projection, and for an
            image without z.
        first: number of the frame to show first.
        size: height and width of a frame in pixels.
        factor: pixels of the image along y and x for one of the view.
        pixel_um: micrometres of a pixel of the view along x, if known.
        notes: what is shown, as sentences without a period.
    """

    images: tuple[ImageLayer, ...]
    labels: tuple[LabelLayer, ...]
    times: tuple[int, ...]
    planes: tuple[int, ...]
    first: int
    size: tuple[int, int]
    factor: int
    pixel_um: float | None
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name of the input's file."""
        return self.images[0].name

    def sentences(self) -> list[str]:
        """Return what is shown, and how, as sentences without a period."""
        images = [f"{layer.title}: {note}" for layer in self.images for note in layer.notes]
        return [
            *self.notes,
            *images,
            *(f"{layer.title}: {layer.objects} objects of {layer.name}" for layer in self.labels),
        ]


def read_view(
    source: str | Place | ViewSource,
    *,
    prediction: str | Place | ViewSource | None = None,
    labels: str | Place | ViewSource | None = None,
    plane: Plane | None = None,
    time: int | None = None,
    size: int = SIZE,
    all_frames: bool = True,
) -> View:
    """Read what is shown of an image; arguments and errors as of `write.write_view`, `all_frames` as a page has them."""
    if size < SMALLEST_SIZE:
        raise EvaluationError(f"--size {size} is too small; give {SMALLEST_SIZE} pixels or more")
    image = _open(_as_source(source), "input")
    shown, label_images = _predictions_and_labels(image, prediction, labels)
    for other in (*shown, *label_images):
        _check_same_size(image, other)
    times = _chosen_times(image, time, all_frames=all_frames)
    planes, projected, first = _chosen_planes(
        image, plane, len(times), has_labels=bool(label_images), all_frames=all_frames
    )
    frames = len(times) * max(1, len(planes))
    side = _longest_side([o.image for o in (image, *shown)], frames, size)
    layers = [_read_image(o, times, None if projected else planes or (0,), side) for o in (image, *shown)]
    label_layers = [_read_labels(o, times, planes or (0,), side) for o in label_images]
    factor = reduce_image(image.source.path, image.image, side).factor
    arrays = [*(layer.values for layer in layers), *(layer.values for layer in label_layers)]
    height, width = (min(array.shape[axis] for array in arrays) for axis in (-2, -1))
    return View(
        images=tuple(layers),
        labels=tuple(label_layers),
        times=times,
        planes=planes,
        first=first,
        size=(height, width),
        factor=factor,
        pixel_um=_pixel_um(image, factor),
        notes=tuple(_frame_notes(image, times, planes, projected, factor)),
    )


def _longest_side(images: Sequence[xr.DataArray], frames: int, size: int) -> int:
    """Return the longest side of a picture, so that a page of several frames stays small."""
    if frames == 1:
        return size
    channels = max(min(MOST_CHANNELS, image.sizes.get("channel", 1)) for image in images)
    ratio = max(images[0].sizes["x"] / images[0].sizes["y"], images[0].sizes["y"] / images[0].sizes["x"])
    return min(size, max(SMALLEST_SIZE, math.isqrt(int(_PAGE_PIXELS * ratio / (frames * channels)))))


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """An opened image: its source, its role in messages, and its name."""

    source: ViewSource
    image: xr.DataArray
    role: str

    @property
    def name(self) -> str:
        parts = Path(str(self.source.path)).parts
        return "/".join(parts[-3:]) if "labels" in parts[-2:-1] else parts[-1]


def _as_source(source: str | Place | ViewSource) -> ViewSource:
    return source if isinstance(source, ViewSource) else ViewSource(source)


def _open(source: ViewSource, role: str, *, labels: bool = False) -> _Opened:
    image = open_image(source.path, axes=source.axes, channels=source.channels, labels=labels)
    if missing := [axis for axis in ("y", "x") if axis not in image.dims]:
        raise EvaluationError(
            f"{source.path}: the {role} has no axis {' and '.join(missing)} to show; it has {', '.join(map(str, image.dims))}"
        )
    if not image.size:
        raise EvaluationError(f"{source.path}: the {role} is empty: it has no voxels")
    return _Opened(source, image, role)


def _predictions_and_labels(
    image: _Opened,
    prediction: str | Place | ViewSource | None,
    labels: str | Place | ViewSource | None,
) -> tuple[list[_Opened], list[_Opened]]:
    """Return the prediction if it has intensities that are not only maps for its labels, and all label images."""
    shown: list[_Opened] = []
    found: list[_Opened] = []
    if prediction is not None:
        opened = _open(_as_source(prediction), "prediction")
        if _is_labels(opened):
            found.append(_open(_as_source(prediction), "predicted labels", labels=True))
        else:
            shown.append(opened)
    if labels is not None:
        found.append(_open(_as_source(labels), "labels", labels=True))
    elif not found:
        within = next((n for o in (*shown, image) if (n := _labels_within(o.source.path)) is not None), None)
        found += [] if within is None else [_open(ViewSource(within), "labels", labels=True)]
        if within is not None and within.name == INSTANCES and _labels_within(image.source.path) != within:
            shown = []  # maps, of which the labels were made
    for opened in found:
        _check_labels(opened)
    return shown, found


def _is_labels(opened: _Opened) -> bool:
    """Return whether an image is labels: as `predict` wrote them, of an OME-Zarr's group of labels, or of large integers."""
    image = opened.image
    if image.attrs.get(ATTRIBUTES_KEY, {}).get("output") == INSTANCES:
        return True
    if Path(str(opened.source.path)).parent.name == "labels":
        return True
    return image.sizes.get("channel", 1) == 1 and image.dtype.kind in "iu" and image.dtype.itemsize >= 4


def _labels_within(source: str | Place) -> Path | None:
    names = label_names(source)
    if not names:
        return None
    return Path(str(source)) / "labels" / (INSTANCES if INSTANCES in names else names[0])


def _check_labels(opened: _Opened) -> None:
    if opened.image.sizes.get("channel", 1) > 1:
        raise EvaluationError(
            f"{opened.source.path}: is no label image: it has {opened.image.sizes['channel']} channels, labels have one; give it as "
            "PREDICTION to show it as intensities"
        )


def _check_same_size(image: _Opened, other: _Opened) -> None:
    ours, theirs = ({a: o.image.sizes.get(a, 1) for a in _COMPARED} for o in (image, other))
    if ours != theirs:
        wrong = ", ".join(f"{a} {theirs[a]} instead of {ours[a]}" for a in _COMPARED if ours[a] != theirs[a])
        raise EvaluationError(
            f"{other.source.path}: the {other.role} and the input {image.source.path} must have the same size, but it has {wrong}; give "
            "the one that belongs to this image, or crop or resample one of them"
        )


def _chosen_times(image: _Opened, time: int | None, *, all_frames: bool) -> tuple[int, ...]:
    count = image.image.sizes.get("time", 1)
    if time is not None:
        return (_index(image, "time", time, count),)
    if not all_frames:
        return (0,)
    return _evenly(count, _TIMES if image.image.sizes.get("z", 1) > 1 else _FRAMES)


def _chosen_planes(
    image: _Opened, plane: Plane | None, times: int, *, has_labels: bool, all_frames: bool
) -> tuple[tuple[int, ...], bool, int]:
    """Return the planes, () if there is no z; whether they are projected; and the number of the one to show first."""
    count = image.image.sizes.get("z", 1)
    if isinstance(plane, int):
        return (_index(image, "z", plane, count),), False, 0
    if count == 1:
        return (), False, 0
    if plane is None and not all_frames:
        plane = "middle" if has_labels else "max"
    if plane == "middle":
        return (count // 2,), False, 0
    if plane == "max":
        if has_labels:
            raise EvaluationError(
                "--plane max: labels have no maximum projection; give the number of a plane, or middle, or leave out the labels"
            )
        return (), True, 0
    planes = _evenly(count, max(1, _FRAMES // times))
    return planes, False, len(planes) // 2


def _index(image: _Opened, axis: str, index: int, count: int) -> int:
    if not 0 <= index < count:
        option = "--plane" if axis == "z" else "--time"
        raise EvaluationError(
            f"{option} {index}: {image.source.path} has {count} along {axis}; give 0 to {count - 1}"
        )
    return index


def _evenly(count: int, most: int) -> tuple[int, ...]:
    return tuple(sorted({round(float(v)) for v in np.linspace(0, count - 1, min(count, most))}))


def _read_image(
    opened: _Opened, times: tuple[int, ...], planes: tuple[int, ...] | None, side: int
) -> ImageLayer:
    image = opened.image
    count = image.sizes.get("channel", 1)
    colours = channel_colours(
        image, stated_colours(opened.source.path) if opened.source.channels is None else ()
    )
    own_colours = is_colour(image)
    kept = min(count, 3 if own_colours else MOST_CHANNELS)
    source = opened.source
    reduced = reduce_image(source.path, image, side, axes=source.axes, channels=source.channels)
    values = np.concatenate([reduced.read(time, planes)[:, :kept] for time in times]).astype(np.float32)
    names = names_of(image)[:kept]
    limits = _limits_of(values, own_colours=own_colours, dtype=image.dtype)
    notes = []
    if count > kept:
        notes.append(f"the first {kept} of {count} channels; choose others with --channels")
    listed = "; ".join(
        f"{names[k] + ' ' if names and not own_colours else ''}{low:.4g} to {high:.4g}"
        for k, (low, high) in enumerate(limits[:1] if own_colours else limits)
    )
    how = (
        "own colours"
        if own_colours and image.dtype == np.uint8
        else f"percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of what is shown"
    )
    notes.append(f"black to full brightness: {listed} ({how})")
    if opened.role == "prediction" and count == 1 and image.dtype.kind in "iu":
        notes.append("shown as intensities; if it is a label image, pass it with --labels")
    if reduced.level:
        notes.append(f"read from level {reduced.level} of the pyramid")
    if (depth := reduced.factors["z"]) > 1:
        notes.append(f"each plane is the mean of {depth} of the file")
    return ImageLayer(
        opened.role, opened.name, values, names, colours[:kept], limits, own_colours, tuple(notes)
    )


def _limits_of(
    values: NDArray[np.float32], *, own_colours: bool, dtype: np.dtype[Any]
) -> tuple[tuple[float, float], ...]:
    """Return the values that are black, and in full colour, of each channel; colours of a picture have the same, so that they keep."""
    channels = range(values.shape[1])
    if dtype.kind == "b":
        return tuple((0.0, 1.0) for _ in channels)
    if not own_colours:
        return tuple(contrast_limits(values[:, k]) for k in channels)
    high = 255.0 if dtype == np.uint8 else contrast_limits(values)[1]
    return tuple((0.0, high) for _ in channels)


def _read_labels(opened: _Opened, times: tuple[int, ...], planes: tuple[int, ...], side: int) -> LabelLayer:
    source = opened.source
    reduced = reduce_image(
        source.path, opened.image, side, axes=source.axes, channels=source.channels, labels=True
    )
    values = np.concatenate([reduced.read(time, planes)[:, 0] for time in times])
    try:
        values = as_labels(values, str(source.path))
    except EvaluationError as error:
        raise EvaluationError(
            f"{source.path}: is no label image, whose values are whole numbers from 0, the background; it holds values of "
            f"{opened.image.dtype} from {values.min():g} to {values.max():g}. Give it as PREDICTION to show it as intensities"
        ) from error
    return LabelLayer(opened.role, opened.name, values, int(np.count_nonzero(np.unique(values))))


def _pixel_um(image: _Opened, factor: int) -> float | None:
    pixel = image.image.attrs.get("pixel_size_um", {}).get("x")
    return float(pixel) * factor if pixel else None


def _frame_notes(
    image: _Opened, times: tuple[int, ...], planes: tuple[int, ...], projected: bool, factor: int
) -> list[str]:
    sizes = image.image.sizes
    notes = [
        f"{sizes['x']} x {sizes['y']} pixels" + (f", shown at 1/{factor} of the size" if factor > 1 else "")
    ]
    if projected:
        notes.append(f"maximum over {sizes['z']} z planes")
    for axis, word, chosen in (("z", "z plane", planes), ("time", "time point", times)):
        if sizes.get(axis, 1) > 1 and chosen:
            one = f"{word} {chosen[0]} of {sizes[axis]}, counted from 0"
            some = f"{len(chosen)} of {sizes[axis]} {word}s, evenly spaced"
            every = f"all {sizes[axis]} {word}s"
            notes.append(one if len(chosen) == 1 else every if len(chosen) == sizes[axis] else some)
    others = [str(a) for a in image.image.dims if a not in (*_COMPARED, "channel") and sizes[a] > 1]
    notes += [f"{axis} 0 of {sizes[axis]}" for axis in others]
    if not image.image.attrs.get("pixel_size_um", {}).get("x"):
        notes.append("no scale bar, because the file does not state the size of a pixel")
    return notes
