"""Text of files and packages as the terminal may show it: characters that control a terminal, or reorder a line, are written out."""

import re
from typing import Any, TextIO, cast

# Control characters but tab and line end, marks of text direction, other line ends, and bytes of a file name that are no UTF-8.
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain_text(text: object) -> str:
    r"""Return a text in which each control character is written out.

    Example:
        >>> print(plain_text("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return _CONTROLS.sub(_written_out, str(text))


class PlainStream:
    """A stream of text that writes control characters out. Rich, which has to control the terminal, writes past it.

    Args:
        stream: where the text goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    @classmethod
    def around(cls, stream: TextIO) -> TextIO:
        """Return the stream if it is one already, else one around it."""
        return stream if isinstance(stream, cls) else cast(TextIO, cls(stream))

    def write(self, text: str) -> int:
        """Write a text; return its length.

        Raises:
            TypeError: it is no text; by this, libraries tell streams of text from those of bytes.
        """
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self.rich_proxied_file.write(plain_text(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
