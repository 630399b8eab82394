"""Metadata of an image file, and conversion of lengths and times to one unit each. Reads no file."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from im2im_zoo.core.axes import AxisName

# Key under which provenance is kept in a file: a zarr attribute, or a key of a JSON text in a TIFF.
ATTRIBUTES_KEY = "im2im_zoo"

_METRES = {
    "angstrom": 1e-10, "å": 1e-10,
    "picometer": 1e-12, "pm": 1e-12,
    "nanometer": 1e-9, "nm": 1e-9,
    "micrometer": 1e-6, "micron": 1e-6, "um": 1e-6, "µm": 1e-6, "μm": 1e-6,
    "millimeter": 1e-3, "mm": 1e-3,
    "centimeter": 1e-2, "cm": 1e-2,
    "decimeter": 1e-1, "dm": 1e-1,
    "meter": 1.0, "m": 1.0,
    "inch": 0.0254, "in": 0.0254,
}  # fmt: skip
_SECONDS = {
    "nanosecond": 1e-9, "ns": 1e-9,
    "microsecond": 1e-6, "us": 1e-6, "µs": 1e-6, "μs": 1e-6,
    "millisecond": 1e-3, "msec": 1e-3, "ms": 1e-3,
    "second": 1.0, "sec": 1.0, "s": 1.0,
    "minute": 60.0, "min": 60.0,
    "hour": 3600.0, "hr": 3600.0, "h": 3600.0,
    "day": 86400.0, "d": 86400.0,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Metadata that a file states.

    Attributes:
        axes: names in the file's order; None where the file does not state them all, so that they must be declared.
        axes_stated_by: what states them, for messages: "its OME-XML".
        pixel_size_um: space axis -> micrometres between voxels; only those that are known.
        translation_um: space axis -> micrometres of the first voxel's centre; only those that are stated.
        time_step_s: seconds between time points, if known.
        channel_names: one a channel, if known.
        attributes: provenance that im2im_zoo wrote.
        singletons: axes of length 1 that the file states and the shape of its voxels leaves out.
    """

    axes: tuple[AxisName, ...] | None = None
    axes_stated_by: str = "the file"
    pixel_size_um: Mapping[str, float] = field(default_factory=dict)
    translation_um: Mapping[str, float] = field(default_factory=dict)
    time_step_s: float | None = None
    channel_names: tuple[str, ...] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    singletons: frozenset[AxisName] = frozenset()


def micrometres(value: object, unit: object) -> float | None:
    """Return a length in micrometres, or None if it is no length: an unknown unit, not a number."""
    metres = _factor(_METRES, unit)
    number = as_number(value)
    return None if metres is None or number is None else _tidy(number * (metres / 1e-6))


def seconds(value: object, unit: object) -> float | None:
    """Return a duration in seconds, or None if it is none: an unknown unit, not a number."""
    factor = _factor(_SECONDS, unit)
    number = as_number(value)
    return None if factor is None or number is None else _tidy(number * factor)


def positive(value: float | None) -> float | None:
    """Return the value if it can be a spacing (finite, above zero), else None."""
    return value if value is not None and math.isfinite(value) and value > 0 else None


def known(**values: float | None) -> dict[str, float]:
    """Return those of the values that are known."""
    return {name: value for name, value in values.items() if value is not None}


def as_number(value: object) -> float | None:
    """Return a number from a number or its text, or None."""
    if isinstance(value, str | int | float):
        try:
            number = float(value)
        except ValueError:
            return None
        return number if math.isfinite(number) else None
    return None


def names_or_none(names: Sequence[object], count: int) -> tuple[str, ...] | None:
    """Return channel names if there is one for each of `count` channels and none is empty, else None."""
    words = tuple("" if name is None else str(name).strip() for name in names)
    return words if len(words) == count and all(words) else None


def provenance(text: object) -> dict[str, Any]:
    """Return the provenance that im2im_zoo wrote into a text field of a file as JSON; {} if the text is something else."""
    if not isinstance(text, str) or ATTRIBUTES_KEY not in text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    inner = found.get(ATTRIBUTES_KEY) if isinstance(found, dict) else None
    return dict(inner) if isinstance(inner, dict) else {}


def pixel_size_um(image: xr.DataArray) -> dict[str, float]:
    """Return the micrometres between voxels for the image's space axes, only those that are known.

    Args:
        image: any image of `open_image`, or any array whose `attrs` carry `pixel_size_um`.
    """
    sizes = image.attrs.get("pixel_size_um", {})
    return {str(axis): float(size) for axis, size in sizes.items() if axis in image.dims}


def _factor(table: Mapping[str, float], unit: object) -> float | None:
    """Return the unit's factor, however it is spelt: "Micrometre", "microns", ImageJ's escaped micro sign."""
    word = (
        str(unit or "")
        .strip()
        .replace("\\u00B5", "µ")
        .replace("\\u00b5", "µ")
        .lower()
        .replace("metre", "meter")
    )
    spellings = (word, word.removesuffix("s"), word.removesuffix("es"))
    return next((table[w] for w in spellings if w in table), None)


def _tidy(value: float) -> float:
    """Round off the noise of a unit's conversion: 0.1 mm is 100 µm, not 100.00000000000001."""
    return float(f"{value:.12g}")
