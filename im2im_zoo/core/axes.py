"""Axis names of the bioimage.io model spec 0.5, their order and their one-letter forms.

The code uses names everywhere (`channel`, `y`); users type letters (`cyx`), and TIFF and OME-NGFF store them.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, cast, get_args

from im2im_zoo.core.errors import AxesError

AxisName = Literal["batch", "index", "time", "channel", "z", "y", "x"]

AXES: tuple[AxisName, ...] = get_args(AxisName)
SPACE: tuple[AxisName, ...] = ("z", "y", "x")
_LETTERS: dict[str, AxisName] = {
    "b": "batch",
    "i": "index",
    "t": "time",
    "c": "channel",
    "z": "z",
    "y": "y",
    "x": "x",
}
_NAMES: dict[str, str] = {name: letter for letter, name in _LETTERS.items()}


def parse_axes(axes: str | Sequence[str]) -> tuple[AxisName, ...]:
    """Parse axes written as letters ("czyx"), or as a list or comma list of names ("channel,y,x").

    Returns:
        The names, in the given order.

    Raises:
        AxesError: an unknown axis, or one that occurs twice.
    """
    words: list[str]
    if isinstance(axes, str):
        words = [w.strip() for w in axes.split(",")] if "," in axes or axes.lower() in AXES else list(axes)
    else:
        # A recipe may hold any value here.
        words = [str(word) for word in axes] if isinstance(axes, Sequence) else []
    names = [_LETTERS.get(w.lower(), w.lower()) for w in words]
    unknown = sorted({w for w, name in zip(words, names, strict=True) if name not in AXES})
    if unknown or not names:
        raise AxesError(
            f"axes {axes!r}: {', '.join(map(repr, unknown)) or 'nothing'} is not an axis; "
            f"use letters of {''.join(_LETTERS)!r} or names of {', '.join(AXES)}"
        )
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise AxesError(f"axes {axes!r}: {', '.join(doubled)} occurs more than once; give each axis once")
    return tuple(cast(list[AxisName], names))


def axes_letters(axes: Iterable[str]) -> str:
    """Return the axes as letters: ("channel", "y", "x") -> "cyx"."""
    return "".join(_NAMES[a] for a in axes)


def space_axes(axes: Iterable[str]) -> tuple[AxisName, ...]:
    """Return the space axes among `axes`, in the order z, y, x."""
    given = set(axes)
    return tuple(a for a in SPACE if a in given)
