"""Pictures of images: a `Panel` describes one, `render_panel` draws it as RGB with a caption."""

import math
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation import semantic
from im2im_zoo.evaluation.alignment import align, channel_names
from im2im_zoo.evaluation.contingency import as_labels, overlaps
from im2im_zoo.evaluation.object_states import ObjectStates, find_borders, object_states
from im2im_zoo.images.colours import is_colour

Kind = Literal["intensity", "labels", "mask", "error", "overlap", "matches"]
View = Literal["auto", "max", "middle"]
KINDS: tuple[Kind, ...] = get_args(Kind)
RGB = NDArray[np.uint8]

PERCENTILES = (0.5, 99.5)
LONGEST = 768  # pixels of a rendered panel's longer side
# Okabe & Ito 2008: distinct with every kind of colour vision, and by lightness in grey print.
AGREE, ONLY_PREDICTION, ONLY_TARGET = (222, 222, 222), (230, 120, 0), (40, 140, 230)
SPLIT, MERGED = (0, 158, 115), (204, 121, 167)
_CHANNEL_COLOURS = ((255, 255, 255), (255, 0, 255), (0, 255, 0), (0, 190, 255), (255, 190, 0), (255, 60, 60))


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a report.

    Attributes:
        title: short, e.g. "prediction".
        image: axes y and x, and any of z, channel, time, batch, index.
        kind: "intensity" (grey, the own colours of red, green and blue, or one colour a channel), "labels" (a colour each), "mask", "error" (image - target),
            "overlap" (pixels of image and of target) or "matches" (objects of both, matched at IoU 0.5).
        caption: text in front of the description of the drawing.
        target: the truth, for the last three kinds.
        contrast: values shown as black and white; default: percentiles 0.5 and 99.5 of each channel.
        view: how z is shown: "max" projection or "middle" plane; "auto": max for intensities, else middle.
        states: states of the objects of "matches", if these are parts of a larger image; default: computed from the panel.
    """

    title: str
    image: xr.DataArray
    kind: Kind = "intensity"
    caption: str = ""
    target: xr.DataArray | None = None
    contrast: tuple[float, float] | None = None
    view: View = "auto"
    states: ObjectStates | None = None


@dataclass(frozen=True, eq=False)
class Rendered:
    """Drawn panel.

    Attributes:
        rgb: (height, width, 3).
        caption: description of projection, contrast and reduction.
        legend: colours and their meanings.
        pixel_um: micrometres per pixel of `rgb` along x, if known.
        scale: pixels of `rgb` per pixel of the image, at most 1.
    """

    title: str
    rgb: RGB
    caption: str
    legend: tuple[tuple[tuple[int, int, int], str], ...]
    pixel_um: float | None
    scale: float


@dataclass(frozen=True)
class ScaleBar:
    """Scale bar of a round length: `fraction` of the picture's width, and its text."""

    fraction: float
    text: str


def render_panel(panel: Panel, *, longest: int = LONGEST) -> Rendered:
    """Draw a panel.

    Args:
        longest: pixels; larger images are reduced by a whole factor (means of intensities, every n-th label).
    Raises:
        EvaluationError: an unknown kind, an image without y and x, a target that is missing or does not align.
    """
    if panel.kind not in KINDS:
        raise EvaluationError(
            f"panel {panel.title!r}: kind {panel.kind!r} is unknown; use one of {', '.join(KINDS)}"
        )
    image, target, notes = _select_planes(panel)
    factor = max(1, math.ceil(max(image.sizes["y"], image.sizes["x"]) / longest))
    if panel.kind == "intensity":
        legend: tuple[tuple[tuple[int, int, int], str], ...] = ()
        if is_colour(image):
            rgb, how = _draw_colours(
                _reduce(image.isel(channel=[0, 1, 2]), factor), image.dtype, panel.contrast
            )
        else:
            rgb, how = _draw_intensity(_reduce(image, factor), panel.contrast)
        if image.sizes["channel"] > 1 and not is_colour(image):
            legend = tuple(zip(_CHANNEL_COLOURS[1:], _channel_labels(image), strict=False))
    else:
        rgb, how, legend = _draw_comparison(panel, image, target, factor)
    if factor > 1:
        notes.append(f"shown at 1/{factor} size")
    pixel = panel.image.attrs.get("pixel_size_um", {}).get("x")
    parts = (panel.caption.rstrip("."), ", ".join([*notes, *how]))
    caption = ". ".join(part[:1].upper() + part[1:] for part in parts if part)
    return Rendered(panel.title, rgb, caption, legend, float(pixel) * factor if pixel else None, 1 / factor)


def scale_bar(picture: Rendered, share: float = 0.22) -> ScaleBar:
    """Return a bar of 1, 2 or 5 times a power of ten, at most `share` of the width: in micrometres if known, else in pixels."""
    width = picture.rgb.shape[1]
    unit = picture.pixel_um if picture.pixel_um else 1 / picture.scale
    length = _round_down(width * unit * share)
    if picture.pixel_um is None:
        length = max(1.0, length)
        return ScaleBar(length / unit / width, f"{length:g} px")
    text = (
        f"{length * 1000:g} nm"
        if length < 1
        else f"{length:g} µm"
        if length < 1000
        else f"{length / 1000:g} mm"
    )
    return ScaleBar(length / unit / width, text)


def png_bytes(rgb: RGB) -> bytes:
    """Return RGB (height, width, 3) uint8 as the bytes of a PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _select_planes(panel: Panel) -> tuple[xr.DataArray, xr.DataArray, list[str]]:
    """Return image and target (the image itself where none is needed) as (channel, y, x), and a description of the selection."""
    if panel.kind not in ("error", "overlap", "matches"):
        image, notes = _flatten(panel.image, panel.view, panel.kind)
        return image, image, notes
    if panel.target is None:
        raise EvaluationError(f"panel {panel.title!r}: kind {panel.kind!r} needs a target to compare with")
    pair = align(panel.image, panel.target)
    image, notes = _flatten(pair.prediction, panel.view, panel.kind)
    target, _ = _flatten(pair.target, panel.view, panel.kind)
    return image, target, notes


def _flatten(image: xr.DataArray, view: View, kind: Kind) -> tuple[xr.DataArray, list[str]]:
    """Return the image as (channel, y, x), first place along other axes, z projected or cut; and a description of that."""
    lost = [axis for axis in ("y", "x") if axis not in image.dims]
    if lost:
        raise EvaluationError(
            f"an image with axes {', '.join(map(str, image.dims))} has no {' and '.join(lost)} to show"
        )
    notes: list[str] = []
    for axis in [d for d in image.dims if d not in ("channel", "z", "y", "x")]:
        if image.sizes[axis] > 1:
            notes.append(f"{axis} 0 of {image.sizes[axis]}")
        image = image.isel({axis: 0})
    if "z" in image.dims:
        planes = image.sizes["z"]
        if view == "max" or (view == "auto" and kind == "intensity"):
            image = image.max("z")
            notes += [f"maximum over {planes} z planes"] if planes > 1 else []
        else:
            image = image.isel(z=planes // 2)
            notes += [f"z plane {planes // 2} of {planes}"] if planes > 1 else []
    if "channel" not in image.dims:
        image = image.expand_dims("channel")
    if kind != "intensity" and image.sizes["channel"] > 1:
        notes.append(f"channel {_channel_labels(image)[0]}")
        image = image.isel(channel=[0])
    return image.transpose("channel", "y", "x"), notes


def _channel_labels(image: xr.DataArray) -> list[str]:
    return list(channel_names(image)) or [str(k) for k in range(image.sizes["channel"])]


def _draw_intensity(image: NDArray[Any], contrast: tuple[float, float] | None) -> tuple[RGB, list[str]]:
    """Return RGB of (channel, y, x): one channel in grey, several in colours that add up."""
    colours = _CHANNEL_COLOURS[:1] if len(image) == 1 else _CHANNEL_COLOURS[1:]
    total = np.zeros((*image.shape[1:], 3))
    ranges: list[str] = []
    for channel, colour in zip(image, colours, strict=False):
        low, high = contrast or _limits(channel)
        ranges.append(f"{low:.4g} to {high:.4g}")
        total += _stretch(channel, low, high)[..., None] * np.array(colour)
    kind = "" if contrast else f" (percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g})"
    how = [
        f"black to white: {'; '.join(ranges)}{kind}"
        if len(image) == 1
        else f"contrast: {'; '.join(ranges)}{kind}"
    ]
    if len(image) > len(colours):
        how.append(f"the first {len(colours)} of {len(image)} channels")
    return np.clip(total, 0, 255).astype(np.uint8), how


def _draw_colours(
    image: NDArray[Any], dtype: np.dtype[Any], contrast: tuple[float, float] | None
) -> tuple[RGB, list[str]]:
    """Return RGB of (channel, y, x) in its own colours: all three have the same contrast, of 8 bits that of the type."""
    own = (0.0, 255.0) if dtype == np.uint8 else (float(min(image.min(), 0)), float(_limits(image)[1]))
    low, high = contrast or own
    rgb = np.moveaxis(_stretch(image, low, high), 0, -1) * 255
    return rgb.round().astype(np.uint8), [f"own colours, black to white: {low:.4g} to {high:.4g}"]


def _draw_comparison(
    panel: Panel, image: xr.DataArray, target: xr.DataArray, factor: int
) -> tuple[RGB, list[str], tuple[tuple[tuple[int, int, int], str], ...]]:
    if panel.kind == "error":
        return _draw_error(_reduce(image, factor)[0] - _reduce(target, factor)[0], panel.contrast)
    own, truth = image.to_numpy()[0], target.to_numpy()[0]
    if panel.kind == "labels":
        labels = as_labels(own, panel.title)
        return (
            _colour_labels(_subsample(labels, factor)),
            [f"{_count_objects(labels)} objects in view, a colour each"],
            (),
        )
    if panel.kind == "mask":
        mask = _foreground(own)
        grey = np.where(_subsample(mask, factor)[..., None], np.uint8(AGREE[0]), np.uint8(0)).repeat(3, 2)
        return grey, [f"foreground {100 * mask.mean():.1f} % of the view"], ()
    if panel.kind == "overlap":
        states, how = _pixel_states(_foreground(own), (truth > 0).astype(np.uint8))
        words = ("both", "prediction only (FP)", "target only (FN)")
    else:
        return _draw_objects(as_labels(own, "prediction"), as_labels(truth, "target"), panel.states, factor)
    palette = np.array([(0, 0, 0), ONLY_PREDICTION, ONLY_TARGET, AGREE], dtype=np.uint8)
    legend = tuple(zip((AGREE, ONLY_PREDICTION, ONLY_TARGET), words, strict=True))
    return palette[_subsample(states, factor)], [how], legend


def _draw_error(
    error: NDArray[np.float64], contrast: tuple[float, float] | None
) -> tuple[RGB, list[str], tuple[tuple[tuple[int, int, int], str], ...]]:
    """Return black where right, one colour above the target, one below."""
    limit = max(map(abs, contrast)) if contrast else float(np.percentile(np.abs(error), PERCENTILES[1]))
    above, below = (_stretch(sign * error, 0, limit)[..., None] for sign in (1, -1))
    rgb = above * np.array(ONLY_PREDICTION) + below * np.array(ONLY_TARGET)
    how = f"prediction − target, full colour at ±{limit:.4g}"
    return rgb.astype(np.uint8), [how], ((ONLY_PREDICTION, "too bright"), (ONLY_TARGET, "too dark"))


def _pixel_states(prediction: NDArray[np.uint8], target: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], str]:
    """Return 0 for background, 1 prediction only, 2 target only, 3 both; and a text with the Dice of the view."""
    return prediction + 2 * target, f"Dice of this view {semantic.dice(prediction, target):.3f}"


def _draw_objects(
    prediction: NDArray[Any], target: NDArray[Any], states: ObjectStates | None, factor: int
) -> tuple[RGB, list[str], tuple[tuple[tuple[int, int, int], str], ...]]:
    """Return a colour for each state of objects, dark where two objects of the same image touch."""
    known = states or object_states(overlaps(prediction, target))
    palette = np.array([(0, 0, 0), ONLY_PREDICTION, ONLY_TARGET, AGREE, SPLIT, MERGED], dtype=np.uint8)
    rgb = palette[_subsample(known.paint(prediction, target), factor)]
    rgb[_subsample(find_borders(prediction, target), factor)] //= 3
    matched, false, missed, split, merged = known.counts
    how = f"in this view {matched} matched, {false} false, {missed} missed objects; {split} split, {merged} that merge others"
    if states is not None:
        how = "judged by the whole objects"
    colours = (AGREE, ONLY_PREDICTION, ONLY_TARGET, SPLIT, MERGED)
    words = ("matched (IoU ≥ 0.5)", "predicted, no match (FP)", "missed (FN)", "split", "merged")
    return rgb, [how], tuple(zip(colours, words, strict=True))


def _foreground(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(values > (0.5 if values.dtype.kind == "f" else 0), dtype=np.uint8)


def _colour_labels(labels: NDArray[Any]) -> RGB:
    """Return a colour for each label (hues by the golden ratio), the outline of each a little darker, background black."""
    ids, inverse = np.unique(labels, return_inverse=True)
    hue = (ids.astype(np.float64) * 0.618033988749895) % 1.0
    light = np.array([0.95, 0.78, 0.88])[(ids % 3).astype(int)]
    # the hue circle in three ramps, as matplotlib's hsv_to_rgb, kept a little pale
    ramps = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    colours = light[:, None] * (0.35 + 0.65 * np.clip(ramps, 0, 1))
    colours[ids == 0] = 0
    rgb = colours[inverse.reshape(labels.shape)]
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    rgb[edge] *= 0.45
    return np.asarray(rgb * 255, dtype=np.uint8)


def _count_objects(labels: NDArray[Any]) -> int:
    return int(np.count_nonzero(np.unique(labels)))


def _reduce(image: xr.DataArray, factor: int) -> NDArray[np.float64]:
    """Return means over factor x factor pixels of (channel, y, x); an incomplete block at the far border is dropped."""
    values = np.asarray(image.to_numpy(), dtype=np.float64)
    if factor == 1:
        return values
    c, height, width = values.shape
    rows, columns = max(1, height // factor), max(1, width // factor)
    cut = values[:, : rows * factor, : columns * factor]
    if cut.shape[1] < factor or cut.shape[2] < factor:
        return cut[:, ::factor, ::factor]
    return np.asarray(cut.reshape(c, rows, factor, columns, factor).mean(axis=(2, 4)))


def _subsample(values: NDArray[Any], factor: int) -> NDArray[Any]:
    return values[::factor, ::factor]


def _limits(values: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(values, PERCENTILES)
    return float(low), float(high)


def _stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return values from low to high as 0 to 1, clipped outside; all 0 when the two are equal."""
    if not high > low:
        return np.zeros(values.shape)
    return np.clip((np.asarray(values, dtype=np.float64) - low) / (high - low), 0, 1)


def _round_down(length: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten that is not above `length`."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))
