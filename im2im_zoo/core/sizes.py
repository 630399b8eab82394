"""Sizes in bytes, from text and as text."""

import re

# float32 counts exactly up to here; beyond it, labels would merge.
LARGEST_WHOLE = 2**24

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4}
_BINARY_UNITS = {"ki": 1024, "mi": 1024**2, "gi": 1024**3, "ti": 1024**4}


def parse_size(text: str) -> int:
    """Return the bytes of a size such as 4GB, 500 MB, 2GiB or 1000000.

    Raises:
        ValueError: not a size.

    Example:
        >>> parse_size("4GB")
        4000000000
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not found:
        raise ValueError(f"{text!r} is not a size; give one such as 4GB or 500MB")
    return int(float(found[1]) * (_UNITS | _BINARY_UNITS)[found[2] or ""])


def bytes_text(count: float) -> str:
    """Return a number of bytes as text, for example `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def size_option(count: int) -> str:
    """Return a number of bytes as an option takes it, rounded up to three digits.

    Example:
        >>> size_option(678_288_588)
        '679MB'
    """
    factor = next((f for f in _UNITS.values() if count < 1000 * f), 1000**4)
    unit = next(u for u, f in _UNITS.items() if f == factor)
    digits = max(0, 3 - len(str(count // factor)))
    rounded = -(-count * 10**digits // factor) / 10**digits
    return f"{rounded:.{digits}f}{unit.upper()}B"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one.

    Args:
        count: of things.
        noun: one of them; the plural adds an s.

    Example:
        >>> counted(1, "tile"), counted(1200, "tile")
        ('1 tile', '1,200 tiles')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
