"""Colours of channels and labels, and arrays painted in them. Reads no file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.images.colours import is_colour, names_of

RGB = NDArray[np.uint8]
Colour = tuple[int, int, int]

PERCENTILES = (0.5, 99.5)
WHITE: Colour = (255, 255, 255)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
# Of channels whose names tell no colour: distinct with every kind of colour vision for the first few.
CHANNEL_COLOURS: tuple[Colour, ...] = (
    (255, 0, 255),
    (0, 255, 0),
    (0, 190, 255),
    (255, 190, 0),
    (255, 60, 60),
)
_STAIN_BLUE, _YELLOW, _FAR_RED, _CYAN, _GREY = (
    (60, 110, 255),
    (255, 220, 0),
    (255, 0, 255),
    (0, 220, 255),
    (200, 200, 200),
)
# Words in the names of channels, the first that is found; a dye has the colour that it is shown in, about that of its light.
_COLOURS_BY_WORD: Mapping[str, Colour] = {
    r"dapi|hoechst|nuclei|nucleus|dna|bfp|blue|alexa ?fluor ?(350|405)|a(350|405)": _STAIN_BLUE,
    r"cfp|cyan|turquoise": _CYAN,
    r"e?gfp|fitc|green|alexa ?fluor ?488|a(f ?)?488|488": GREEN,
    r"e?yfp|yellow|venus": _YELLOW,
    r"cy5|far ?red|alexa ?fluor ?6\d\d|a(f ?)?6\d\d|6[34]\d|magenta": _FAR_RED,
    r"m?cherry|rfp|tritc|cy3|texas ?red|rhodamine|td ?tomato|red|alexa ?fluor ?5\d\d|a(f ?)?5\d\d|5[569]\d": RED,
    r"brightfield|bright ?field|bf|dic|phase( ?contrast)?|transmitted|tl|trans|gr[ae]y": _GREY,
}


def colour_of_name(name: str) -> Colour | None:
    """Return the colour that a channel of this name is shown in; None if the name tells none.

    Example:
        >>> colour_of_name("EGFP"), colour_of_name("channel 3")
        ((0, 255, 0), None)
    """
    words = re.sub(r"[_\-]+", " ", name.lower())
    for pattern, colour in _COLOURS_BY_WORD.items():
        if re.search(rf"(?<![a-z0-9])({pattern})(?![a-z0-9])", words):
            return colour
    return None


def channel_colours(image: xr.DataArray, stated: Sequence[Colour] = ()) -> tuple[Colour, ...]:
    """Return a colour for each channel of an image: stated ones, those of its names, else distinct ones; white if it is the only one.

    Args:
        image: with or without an axis of channels.
        stated: by its file, one a channel; ignored if there are others in number.
    """
    count = image.sizes.get("channel", 1)
    if count == 1:
        return (WHITE,)
    if is_colour(image):
        return (RED, GREEN, BLUE, *[WHITE] * (count - 3))[:count]
    if len(stated) == count:
        return tuple(stated)
    names = names_of(image) or ("",) * count
    named = [colour_of_name(name) for name in names]
    left = [colour for colour in CHANNEL_COLOURS if colour not in named]
    return tuple(colour or (left.pop(0) if left else WHITE) for colour in named)


def contrast_limits(values: NDArray[Any]) -> tuple[float, float]:
    """Return the values at the percentiles 0.5 and 99.5, of finite ones; of an image with few other values than one, its range."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return 0.0, 0.0
    low, high = (float(v) for v in np.percentile(finite, PERCENTILES))
    return (low, high) if high > low else (float(finite.min()), float(finite.max()))


def stretch(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Return values from low to high as 0 to 1, clipped outside, and 0 where they are not numbers; all 0 when the two are equal."""
    if not high > low:
        return np.zeros(values.shape)
    scaled = (np.asarray(values, dtype=np.float64) - low) / (high - low)
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)


def add_channels(
    image: NDArray[Any], limits: Sequence[tuple[float, float]], colours: Sequence[Colour]
) -> RGB:
    """Return RGB of (channel, y, x): the sum of the channels, each in its colour."""
    total = np.zeros((*image.shape[1:], 3))
    for channel, (low, high), colour in zip(image, limits, colours, strict=False):
        total += stretch(channel, low, high)[..., None] * np.array(colour)
    return np.clip(total, 0, 255).astype(np.uint8)


def label_colours(ids: NDArray[Any]) -> NDArray[np.float64]:
    """Return a colour for each label as (label, 3) in 0..1, black for 0: hues by the golden ratio, a little pale."""
    hue = (ids.astype(np.float64) * 0.618033988749895) % 1.0
    light = np.array([0.95, 0.78, 0.88])[(ids % 3).astype(int)]
    # the hue circle in three ramps, as matplotlib's hsv_to_rgb, kept a little pale
    ramps = np.abs((hue[:, None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1
    colours: NDArray[np.float64] = light[:, None] * (0.35 + 0.65 * np.clip(ramps, 0, 1))
    colours[ids == 0] = 0
    return colours


def paint_labels(labels: NDArray[Any]) -> RGB:
    """Return a colour for each label of (y, x), the outline of each darker, background black."""
    ids, inverse = np.unique(labels, return_inverse=True)
    rgb = label_colours(ids)[inverse.reshape(labels.shape)]
    rgb[find_outlines(labels)] *= 0.45
    return np.asarray(rgb * 255, dtype=np.uint8)


def find_outlines(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the pixels of (y, x) that have another label than the one above or to the left."""
    edge = np.zeros(labels.shape, dtype=bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    return edge


def label_layer(labels: NDArray[Any], *, outlines: bool) -> RGB:
    """Return the colours of labels (y, x) as RGBA, to lay over an image: filled, or only the outlines within the objects.

    Args:
        labels: whole numbers from 0, the background, which is transparent.
        outlines: draw pixels of objects beside another label; else all pixels of objects.
    """
    ids, inverse = np.unique(labels, return_inverse=True)
    colours = np.concatenate([label_colours(ids) * 255, 255.0 * (ids > 0)[:, None]], axis=1).astype(np.uint8)
    rgba = colours[inverse.reshape(labels.shape)]
    if outlines:
        padded = np.pad(labels, 1, mode="edge")
        inner = padded[1:-1, 1:-1]
        sides = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        rgba[~np.logical_or.reduce([inner != side for side in sides])] = 0
    return rgba


def lay_over(rgb: RGB, layer: RGB) -> RGB:
    """Return RGB with the opaque pixels of an RGBA layer over it."""
    return np.asarray(np.where(layer[..., 3:] > 0, layer[..., :3], rgb), dtype=np.uint8)
