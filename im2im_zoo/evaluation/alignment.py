"""Alignment of a prediction with its target: the same axes, sizes and channels, in the same order."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import EvaluationError

# Along these axes an image file holds several images; every metric is taken per image.
_IMAGE_AXES = ("batch", "index", "time")


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """A prediction and a target with the same dims, in the same order, and of the same shape.

    Attributes:
        prediction, target: dims in the order of the target; no axis of size 1 that only one had.
        channels: a name for each channel; one name when there is no channel axis.
        notes: assumptions that were made.
    """

    prediction: xr.DataArray
    target: xr.DataArray
    channels: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())

    def images(self) -> Iterator[tuple[int, NDArray[np.generic], NDArray[np.generic]]]:
        """Yield (channel, prediction, target) for each channel of each image, space axes only, as numpy."""
        for where, _, p, t in self.lazy_images():
            yield where.get("channel", 0), p.to_numpy(), t.to_numpy()

    def lazy_images(self) -> Iterator[tuple[dict[str, int], str, xr.DataArray, xr.DataArray]]:
        """Yield (place, name, prediction, target) for each channel of each image, space axes only; lazy arrays stay lazy.

        The name is that of the prediction's file, if it is known, with the place along other axes.
        """
        outer = [str(a) for a in self.target.dims if a in _IMAGE_AXES or a == "channel"]
        source = Path(str(self.prediction.attrs.get("source", "image"))).name
        for place in itertools.product(*(range(self.target.sizes[a]) for a in outer)):
            where = dict(zip(outer, place, strict=True))
            parts = [
                f"{a} {n}" if a != "channel" else self.channels[n]
                for a, n in where.items()
                if self.target.sizes[a] > 1
            ]
            p, t = (a.isel(where) for a in (self.prediction, self.target))
            yield where, ", ".join([source, *parts]), p, t


def align(prediction: xr.DataArray, target: xr.DataArray, *, match_channels: bool = True) -> Aligned:
    """Transpose the prediction to the target's axes, drop axes of size 1 that one lacks, and pair the channels.

    Channels go by name where both images name them and share a name, else by order. A channel "X variance" (or "X_variance") beside a
    channel "X" of the prediction is not compared.

    Args:
        match_channels: if False, keep the channel axis and compare the other axes (class probabilities).
    Raises:
        EvaluationError: axes, channels or sizes that do not fit, values that are not real numbers.
    """
    for name, image in (("prediction", prediction), ("target", target)):
        if image.dtype.kind not in "buif":
            raise EvaluationError(f"{name}: values of {image.dtype} cannot be compared; give numbers")
        if image.size == 0:
            raise EvaluationError(f"{name}: is empty, it has no voxels ({_shape_text(image)})")
    notes: list[str] = []
    prediction = without_variances(prediction, target, notes)
    whole = (prediction, target)
    if match_channels:
        prediction, target = _pair_channels(prediction, target, notes)
    prediction = _drop_singletons(prediction, target, keep=() if match_channels else ("channel",))
    target = _drop_singletons(target, prediction)
    compared = [d for d in target.dims if match_channels or d != "channel"]
    extra = [d for d in prediction.dims if d not in target.dims and (match_channels or d != "channel")]
    missing = [d for d in target.dims if d not in prediction.dims]
    if extra or missing or any(prediction.sizes[d] != target.sizes[d] for d in compared):
        raise EvaluationError(_difference(*whole))
    lead = ("channel",) if "channel" in prediction.dims and "channel" not in target.dims else ()
    prediction = prediction.transpose(*lead, *target.dims)
    if _pixel_size(whole[0]) != _pixel_size(whole[1]) and _pixel_size(whole[0]) and _pixel_size(whole[1]):
        notes.append(
            f"the pixel sizes differ: prediction {_pixel_text(whole[0])}, target {_pixel_text(whole[1])}"
        )
    return Aligned(prediction, target, _channel_names(target, prediction), tuple(notes))


def channel_names(image: xr.DataArray) -> tuple[str, ...]:
    """Return the channel names of an image; () when it has none, or the same one twice."""
    if "channel" not in image.coords:
        return ()
    names = tuple(str(n) for n in np.atleast_1d(image.coords["channel"].to_numpy()))
    numbered = image.coords["channel"].dtype.kind in "uif"
    return () if numbered or len(set(names)) < len(names) else names


def without_variances(prediction: xr.DataArray, target: xr.DataArray, notes: list[str]) -> xr.DataArray:
    """Return the prediction without channels that are the variance of another, unless the target has them, too."""
    names = channel_names(prediction)
    # A package may have to write the name as one word.
    variances = [f"{name}{by}variance" for name in names for by in (" ", "_")]
    left = [name for name in names if name in variances and name not in channel_names(target)]
    if not left:
        return prediction
    notes.append(f"variance channels were not compared: {', '.join(left)}")
    return _select(prediction, names, [name for name in names if name not in left])


def _pair_channels(
    prediction: xr.DataArray, target: xr.DataArray, notes: list[str]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return both with the same channels in the target's order, where names allow it."""
    names_p, names_t = channel_names(prediction), channel_names(target)
    shared = [n for n in names_t if n in names_p]
    if not shared:
        if len(names_p) > 1 and len(names_p) == len(names_t):
            notes.append(
                f"channels were paired by order: the prediction names them {', '.join(names_p)}, "
                f"the target {', '.join(names_t)}"
            )
        return prediction, target
    lost = [n for n in names_p if n not in names_t]
    if lost:
        raise EvaluationError(
            f"channel: the prediction has {', '.join(names_p)}, the target {', '.join(names_t)}; "
            f"no target for {', '.join(lost)}: rename or select channels so that both have the same"
        )
    if len(shared) < len(names_t):
        left = ", ".join(n for n in names_t if n not in names_p)
        notes.append(f"channels of the target without a prediction were left out: {left}")
    return _select(prediction, names_p, shared), _select(target, names_t, shared)


def _select(image: xr.DataArray, names: tuple[str, ...], wanted: list[str]) -> xr.DataArray:
    if "channel" not in image.dims:
        return image
    return image.isel(channel=[names.index(n) for n in wanted])


def _drop_singletons(image: xr.DataArray, other: xr.DataArray, keep: tuple[str, ...] = ()) -> xr.DataArray:
    alone = [d for d in image.dims if image.sizes[d] == 1 and d not in other.dims and d not in keep]
    return image.squeeze(alone)


def _channel_names(target: xr.DataArray, prediction: xr.DataArray) -> tuple[str, ...]:
    count = target.sizes.get("channel", 1)
    for image in (target, prediction):
        names = channel_names(image)
        if len(names) == count:
            return names
    return tuple(f"channel {k}" for k in range(count))


def _difference(prediction: xr.DataArray, target: xr.DataArray) -> str:
    text = (
        f"the prediction ({_shape_text(prediction)}) and the target ({_shape_text(target)}) must have the same axes and "
        "sizes: select, crop or resample one of them"
    )
    if _pixel_size(prediction) != _pixel_size(target):
        text += f"; pixel sizes: prediction {_pixel_text(prediction)}, target {_pixel_text(target)}"
    return text


def _shape_text(image: xr.DataArray) -> str:
    return " ".join(f"{d}={image.sizes[d]}" for d in image.dims) or "a single value"


def _pixel_size(image: xr.DataArray) -> dict[str, float]:
    return {str(k): round(float(v), 9) for k, v in image.attrs.get("pixel_size_um", {}).items()}


def _pixel_text(image: xr.DataArray) -> str:
    return " ".join(f"{k}={v:g} µm" for k, v in _pixel_size(image).items()) or "unknown"
