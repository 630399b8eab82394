"""Sizes in bytes, to text and from text."""

import re

_UNITS = {
    **{letter: 1000**power for power, letter in enumerate(("", "k", "m", "g", "t"))},
    **{f"{letter}i": 1024**power for power, letter in enumerate(("k", "m", "g", "t"), start=1)},
}


def bytes_text(count: float) -> str:
    """Return a number of bytes as text, for example `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def parse_bytes(text: str) -> int:
    """Return the number of bytes that a text such as `4GB`, `500 MB`, `2GiB` or `1000000` gives.

    Raises:
        ValueError: the text is not a size; the message says how to write one.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not found:
        raise ValueError(f"{text!r} is not a size; write for example 4GB or 500MB")
    return int(float(found[1]) * _UNITS[found[2] or ""])
