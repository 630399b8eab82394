"""Registry of the image file formats, which are the classes in the modules of `im2im_zoo.images.formats`."""

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.subclasses import subclasses_in
from im2im_zoo.images import formats as package
from im2im_zoo.images.address import Address, Place
from im2im_zoo.images.image_format import ImageFormat


class ImageSuffixes(NamedTuple):
    """Suffixes of file names, for messages and for finding files."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]


@functools.cache
def image_formats() -> tuple[ImageFormat, ...]:
    """Return one object of each format, those whose files keep most metadata first; a class `_Name` is only a base."""
    found = [c() for c in subclasses_in(package, ImageFormat) if not c.__name__.startswith("_")]
    return tuple(sorted(found, key=lambda f: -len(f.keeps)))


def image_suffixes() -> ImageSuffixes:
    """Return the suffixes that are read and written, the written ones first. Any other is tried with bioio, if it is installed."""
    written = [s for f in image_formats() for s in f.writes]
    read = [s for f in image_formats() if not f.extra for s in f.reads]
    return ImageSuffixes((*written, *(s for s in read if s not in written)), tuple(written))


def known_suffixes() -> tuple[str, ...]:
    """Return the suffixes of all formats that can be read, with every extra."""
    return tuple(_by_suffix(image_formats(), "read"))


def suffix_of(path: Place) -> str:
    """Return the suffix of a format that can be read, as the name has it in lower case; "" if it has none."""
    return _longest(path, [s for s in known_suffixes() if len(s) < len(path.name)])


def format_of(path: Place, able: Literal["read", "write"] = "read") -> ImageFormat | None:
    """Return the format of a file by its name alone, the longest suffix first; None for an unknown one."""
    by_suffix = _by_suffix(image_formats(), able)
    return by_suffix.get(_longest(path, by_suffix))


@functools.cache
def _by_suffix(formats: tuple[ImageFormat, ...], able: Literal["read", "write"]) -> dict[str, ImageFormat]:
    found: dict[str, ImageFormat] = {}
    for image_format in formats:
        for suffix in image_format.reads if able == "read" else image_format.writes:
            found.setdefault(suffix, image_format)
    return found


def format_to_open(path: Place) -> ImageFormat:
    """Return the format of an image that is there: of a folder by its name or its files, of a file by its name.

    Raises:
        ImageError: a folder that is no image, or a file within one.
    """
    if isinstance(path, Address):
        return next(f for f in image_formats() if f.on_web)
    if path.is_dir():
        found = _folder_format(path)
        if found is None:
            names = " or ".join(f.name for f in image_formats() if f.is_folder)
            raise ImageError(f"{path}: is a folder and no {names}; name one image file in it")
        return found
    whole = next((f for f in image_formats() if path.name.lower() in f.marks), None)
    if whole is not None:
        raise ImageError(f"{path}: is one file of the {whole.name} {path.parent}; give that folder")
    found = format_of(path)
    if found is not None and not found.is_folder:
        return found
    return next(f for f in image_formats() if f.reads_any)


def is_image_folder(path: Path) -> bool:
    """Return whether a folder is there that is an image, by its name or its files."""
    return path.is_dir() and _folder_format(path) is not None


def is_marked_folder(path: Path) -> bool:
    """Return whether a folder is there that is an image by its files, whatever its name."""
    return _marked_format(path) is not None


def is_image_file(path: Path) -> bool:
    """Return whether a path is an image that can be opened, by its name: a file, or a folder such as an OME-Zarr."""
    if path.name.startswith("."):
        return False
    return is_image_folder(path) if path.is_dir() else suffix_of(path) != ""


def is_folder_path(path: Place) -> bool:
    """Return whether an image at a path is, or becomes, a folder, by its name."""
    found = format_of(path)
    return found is not None and found.is_folder


def _folder_format(path: Path) -> ImageFormat | None:
    named = (f for f in image_formats() if f.is_folder and path.name.lower().endswith(f.reads))
    return _marked_format(path) or next(named, None)


def _marked_format(path: Path) -> ImageFormat | None:
    return next((f for f in image_formats() if any((path / mark).is_file() for mark in f.marks)), None)


def _longest(path: Place, suffixes: Iterable[str]) -> str:
    name = path.name.lower()
    return max((s for s in suffixes if name.endswith(s)), key=len, default="")
