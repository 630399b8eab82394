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

# Powers of ten of the prefixes of OME-XML, ImageJ and UDUNITS (OME-Zarr): symbol and name.
_PREFIXES = {
    ("Y", "yotta"): 24, ("Z", "zetta"): 21, ("E", "exa"): 18, ("P", "peta"): 15, ("T", "tera"): 12, ("G", "giga"): 9,
    ("M", "mega"): 6, ("k", "kilo"): 3, ("h", "hecto"): 2, ("da", "deca"): 1, ("", ""): 0, ("d", "deci"): -1,
    ("c", "centi"): -2, ("m", "milli"): -3, ("µ", "micro"): -6, ("n", "nano"): -9, ("p", "pico"): -12,
    ("f", "femto"): -15, ("a", "atto"): -18, ("z", "zepto"): -21, ("y", "yocto"): -24,
}  # fmt: skip


def _units(symbol: str, name: str, others: Mapping[str, float]) -> dict[str, float]:
    """Return the factor of each unit of the International System, by symbol and name, and of others."""
    scaled = [(s + symbol, n + name, 10.0**power) for (s, n), power in _PREFIXES.items()]
    return {word: factor for *words, factor in scaled for word in words} | dict(others)


# Symbols are case-sensitive: Mm is a megametre. The other lengths are those of OME-XML and OME-Zarr.
_METRES = _units("m", "meter", {
    "um": 1e-6, "micron": 1e-6,
    "Å": 1e-10, "å": 1e-10, "A": 1e-10, "angstrom": 1e-10, "ångström": 1e-10,
    "thou": 2.54e-5, "mil": 2.54e-5, "li": 0.0254 / 12, "in": 0.0254, "inch": 0.0254, "ft": 0.3048, "foot": 0.3048, "feet": 0.3048,
    "yd": 0.9144, "yard": 0.9144, "mi": 1609.344, "mile": 1609.344, "pt": 0.0254 / 72,
    "ua": 149597870700.0, "ly": 9460730472580800.0, "pc": 3.0856775814913673e16, "parsec": 3.0856775814913673e16,
})  # fmt: skip
_SECONDS = _units("s", "second", {
    "us": 1e-6, "sec": 1.0, "msec": 1e-3, "usec": 1e-6, "nsec": 1e-9,
    "min": 60.0, "minute": 60.0, "h": 3600.0, "hr": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0,
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """Metadata that a file states.

    Attributes:
        axes: names in the file's order; None where the file does not state them all, so that they must be declared.
        axes_stated_by: what states them, for messages: "its OME-XML".
        partial_axes: where `axes` is None, the names of the axes that are known, one a dimension; () if none is.
        axes_note: where `axes` is None, what the file states about them, for messages: "its pages were written one by one".
        axes_alternative: where `axes` is None, another way than to declare them: "name one of them".
        must_choose: where the file states more than its axes can hold, what it is and how to choose from it; then `axes` are those of
            all of it, which are taken only where axes or channels are declared.
        pixel_size_um: space axis -> micrometres between voxels; only those that are known.
        translation_um: space axis -> micrometres of the first voxel's centre; only those that are stated.
        time_step_s: seconds between time points, if known.
        channel_names: one a channel, if known.
        attributes: provenance that im2im_zoo wrote.
        singletons: axes of length 1 that the file states and the shape of its voxels leaves out.
    """

    axes: tuple[AxisName, ...] | None = None
    axes_stated_by: str = "the file"
    partial_axes: tuple[AxisName | None, ...] = ()
    axes_note: str = ""
    axes_alternative: str = ""
    must_choose: str = ""
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
    """Return the unit's factor, however it is spelt: "Micrometre", "microns", ImageJ's escaped micro sign, either mu."""
    word = str(unit or "").strip().replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ")
    lower = word.lower().replace("metre", "meter")
    spellings = (word, lower, lower.removesuffix("s"), lower.removesuffix("es"))
    return next((table[w] for w in spellings if w in table), None)


def _tidy(value: float) -> float:
    """Round off the noise of a unit's conversion: 0.1 mm is 100 µm, not 100.00000000000001."""
    return float(f"{value:.12g}")
