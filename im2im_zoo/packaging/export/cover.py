"""The cover of a package: an image and its result, side by side, 2:1, below bioimage.io's 500 KB."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.images.colours import is_colour

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_BYTES = 500_000
_SIDE = 400
_SMALL = 100  # pixels; of a narrower image, more than the middle square is shown
# Colours for channels, distinct to all common kinds of colour vision: grey alone, else magenta, green, cyan, orange.
_CHANNELS = ((1.0, 0.2, 1.0), (0.2, 1.0, 0.2), (0.1, 0.7, 1.0), (1.0, 0.6, 0.0))


def write_cover(
    path: Path, image: xr.DataArray, result: xr.DataArray, task: Literal["regression", "semantic", "instance"]
) -> None:
    """Write the cover.

    Args:
        path: path of a `.png`.
        image: (channel, [z,] y, x), raw.
        result: the same space; grey values, probabilities or labels, as `task` says.
        task: task of the recipe's output.
    """
    z = _best_slice(result)
    shown = _shown(image, z)
    _write(path, [_square(shown, smooth=True), _result_square(result, z, shown, task)])


def write_comparison(
    path: Path,
    image: xr.DataArray,
    result: xr.DataArray,
    target: xr.DataArray,
    task: Literal["regression", "semantic", "instance"],
) -> None:
    """Write an image, the model's result and the target side by side; arguments as of `write_cover`."""
    z = _best_slice(result)
    background = _shown(image, z)
    both = [_result_square(shown, z, background, task) for shown in (result, target)]
    _write(path, [_square(background, smooth=True), *both])


def _result_square(result: xr.DataArray, z: int | None, grey: NDArray[np.float64], task: str) -> "Image":
    """Return a result or a target as a square picture; `grey` is the image behind it, (y, x, 3)."""
    if task == "regression":
        return _square(_shown(result, z), smooth=True)
    plane = _plane(result, z)
    if task == "semantic":
        return _square(_mask_on(grey, plane), smooth=True)
    return _square(_labels(plane), smooth=False)


def _write(path: Path, squares: "Sequence[Image]") -> None:
    from PIL import Image as Pillow

    for side in (_SIDE, 300, 200):
        picture = Pillow.new("RGB", (len(squares) * side, side), "white")
        gap = max(2, side // 170)
        for i, square in enumerate(squares):
            left, right = i > 0, i < len(squares) - 1
            width = side - gap * (left + right)
            picture.paste(square.resize((width, side)), (i * side + gap * left, 0))
        for optimize in (False, True):  # five times as slow, and some percent smaller
            picture.save(path, optimize=optimize)
            if path.stat().st_size < MAX_BYTES:
                return


def _best_slice(result: xr.DataArray) -> int | None:
    """Return the slice along z in which the result varies most."""
    if "z" not in result.dims:
        return None
    others = [a for a in result.dims if a != "z"]
    return int(np.argmax(result.astype(np.float64).std(others).to_numpy()))


def _plane(image: xr.DataArray, z: int | None) -> NDArray[np.float64]:
    """Return a plane as (channel, y, x) in float64."""
    flat = image.isel(z=z) if z is not None else image
    return flat.transpose("channel", "y", "x").to_numpy().astype(np.float64)


def _shown(image: xr.DataArray, z: int | None) -> NDArray[np.float64]:
    """Return (y, x, 3) in 0..1: red, green and blue in their own colours, other channels as `_grey` shows them."""
    plane = _plane(image, z)
    if not is_colour(image):
        return _grey(plane)
    low, high = (
        (0.0, 255.0) if image.dtype == np.uint8 else (min(plane.min(), 0.0), np.percentile(plane, 99.5))
    )
    shown: NDArray[np.float64] = np.clip((plane[:3] - low) / ((high - low) or 1.0), 0, 1)
    return np.moveaxis(shown, 0, -1)


def _grey(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (y, x, 3) in 0..1: one channel in grey, several in colours, each from percentile 0.5 to 99.3, so that debris does not dim the rest.

    More channels than colours are planes of focus or the like: the middle one is shown.
    """
    if len(plane) > len(_CHANNELS):
        plane = plane[len(plane) // 2 :][:1]
    stretched = []
    for channel in plane:
        low, high = np.percentile(channel, (0.5, 99.3))
        if high <= low:
            low, high = channel.min(), max(channel.max(), channel.min() + 1)
        # A gamma of 0.7 shows dim structures, which are most of a fluorescence image.
        stretched.append(np.clip((channel - low) / (high - low), 0, 1) ** 0.7)
    if len(stretched) == 1:
        return np.repeat(stretched[0][..., None], 3, axis=-1)
    shown = zip(stretched, _CHANNELS, strict=False)
    mixed: NDArray[np.float64] = np.clip(sum(c[..., None] * np.array(colour) for c, colour in shown), 0, 1)
    return mixed


def _mask_on(grey: NDArray[np.float64], plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the image, darker, with the probability (or mask) of each channel over it in colour."""
    shown = grey * 0.45
    colours = _CHANNELS if len(plane) > 1 else ((1.0, 0.75, 0.1),)
    # With several classes the first is mostly the background.
    classes = plane[1:] if len(plane) > 1 else plane
    for probability, colour in zip(classes, colours, strict=False):
        weight = np.clip(probability, 0, 1)[..., None] * 0.75
        shown = shown * (1 - weight) + np.array(colour) * weight
    return shown


def _labels(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return every label in its own bright colour on black."""
    labels = plane[0].astype(np.int64)
    generator = np.random.default_rng(3)
    colours = generator.uniform(0.25, 1, size=(int(labels.max(initial=0)) + 1, 3))
    colours /= colours.max(axis=1, keepdims=True)
    colours[0] = 0
    shown: NDArray[np.float64] = colours[np.clip(labels, 0, None)]
    return shown


def _square(colours: NDArray[Any], *, smooth: bool) -> "Image":
    """Return the middle of an image (y, x, 3) in 0..1 as a square of 8 bits; a narrow image lies on a dark ground."""
    from PIL import Image as Pillow

    height, width = colours.shape[:2]
    narrow = min(height, width)
    side = narrow if narrow >= _SMALL else min(max(height, width), round(1.5 * narrow))
    tall, wide = min(height, side), min(width, side)
    top, left = (height - tall) // 2, (width - wide) // 2
    picture = Pillow.fromarray((colours[top : top + tall, left : left + wide] * 255).round().astype(np.uint8))
    kind = Pillow.Resampling.LANCZOS if smooth and side > _SIDE else Pillow.Resampling.BICUBIC
    size = max(1, _SIDE * wide // side), max(1, _SIDE * tall // side)
    square = Pillow.new("RGB", (_SIDE, _SIDE), (24, 24, 24))
    resized = picture.resize(size, kind if smooth else Pillow.Resampling.NEAREST)
    square.paste(resized, ((_SIDE - size[0]) // 2, (_SIDE - size[1]) // 2))
    return square
