"""Patterns of file names: `{name}` is the part that the images of a pair share, as in `images/{name}` and `masks/{name}_mask`."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.images.names import stem_of
from im2im_zoo.images.registry import is_image_file, known_suffixes

NAME = "{name}"


@dataclass(frozen=True, slots=True)
class NamePattern:
    """A path relative to a folder, with one `{name}`; without a file format it is that of any.

    Attributes:
        before, after: text of the path around the name; `before` may end within a file or a folder, `after` may begin so.

    Examples:
        >>> pattern = NamePattern.parse("masks/{name}_mask", "data.target")
        >>> pattern.find_name("masks/a_mask")
        'a'
    """

    before: str
    after: str

    @classmethod
    def parse(cls, text: str, key: str) -> "NamePattern":
        """Parse the text of a pattern; `key` is its name in messages.

        Raises:
            DataError: it has no `{name}` or several, or leads out of the folder.
        """
        parts = text.split("/")
        if text.count(NAME) != 1 or text.startswith("/") or {"", ".", ".."} & set(parts):
            raise DataError(
                f"{key}: {text!r} is not a pattern of file names; give a path within the folder with {NAME} once, as in "
                "'masks/{name}_mask.tif'"
            )
        before, _, after = text.partition(NAME)
        return cls(before, after)

    def __str__(self) -> str:
        return f"{self.before}{NAME}{self.after}"

    @property
    def has_format(self) -> bool:
        """Whether it ends in the suffix of a file format."""
        return self.after.lower().endswith(tuple(known_suffixes()))

    @property
    def literal(self) -> int:
        """Number of characters that are the same in all names: of two patterns, the one with more describes a file better."""
        return len(self.before) + len(self.after)

    def find_name(self, path: str) -> str | None:
        """Return the name in a relative path (with its format if the pattern has one, else without); None if it does not match."""
        match = re.fullmatch(f"{re.escape(self.before)}([^/]+){re.escape(self.after)}", path)
        return None if match is None else match[1]

    def find_files(self, folder: Path) -> Iterator[tuple[str, Path]]:
        """Yield name and path of each image that matches, sorted by path."""
        top, _, _ = self.before.rpartition("/")
        root = folder / top
        levels = self.after.count("/")
        for path in sorted(_list_at_depth(root, levels)):
            relative = path.relative_to(folder)
            text = relative.as_posix() if self.has_format else (relative.parent / stem_of(path)).as_posix()
            name = self.find_name(text)
            if name is not None:
                yield name, path


def is_pattern(text: str | None) -> bool:
    """Return whether a text has `{name}` in it."""
    return text is not None and NAME in text


def is_ignored(path: Path, folder: Path, ignored: Sequence[str]) -> bool:
    """Return whether a file's name, or its path relative to a folder, matches one of the wildcards (`*`, `?`)."""
    names = (path.name, path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in ignored for name in names)


def _list_at_depth(folder: Path, levels: int) -> Iterable[Path]:
    """List the images that lie a number of folders below a folder."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if levels and path.is_dir() and not path.name.startswith("."):
            yield from _list_at_depth(path, levels - 1)
        elif not levels and is_image_file(path):
            yield path
