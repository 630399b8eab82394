"""Image files of a folder, their stems and what identifies them. Opens no image and knows no pairs.

An OME-Zarr image is a folder; here it counts as one file and is not descended into. A plate counts as the images of its wells.
One on the web has an address, and is known by that and its metadata.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.images import Address, Place, is_image_file, plate_images, stem_of, web_state
from im2im_zoo.images.names import outer_zarr
from im2im_zoo.images.registry import known_suffixes

_SHOWN = 10


def list_files(names: Iterable[object], *, indent: str = "  ") -> str:
    """Names for a message, one a line; at most ten of them, and how many more there are."""
    words = [str(name) for name in names]
    lines = [f"{indent}{word}" for word in words[:_SHOWN]]
    if len(words) > _SHOWN:
        lines.append(f"{indent}and {len(words) - _SHOWN} more")
    return "\n".join(lines)


def image_files(folder: Path, what: str) -> list[Path]:
    """The images that lie directly in a folder, by name; of plates, those of their wells.

    Args:
        folder: where they are.
        what: what they are and which key says where, for messages: "inputs (data.input)".

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        there = (
            sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        )
        hint = f"; in {folder.parent} there are the folders {', '.join(there[:_SHOWN])}" if there else ""
        raise DataError(f"{what}: there is no folder {folder.absolute()}{hint}")
    found = sorted((p for p in folder.iterdir() if is_image_file(p)), key=lambda p: p.name)
    if not found:
        others = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
        raise DataError(
            f"{what}: no images in {folder.absolute()}; looked for files that end in "
            f"{', '.join(known_suffixes())}; "
            + (f"there are only\n{list_files(others)}" if others else "the folder is empty")
        )
    return fields_of(found)


def fields_of(files: Sequence[Path]) -> list[Path]:
    """The files, with the images of its wells in place of each plate.

    Raises:
        ImageError: a damaged plate.
    """
    return [field for path in files for field in ((plate_images(path) if path.is_dir() else None) or [path])]


def well_of(path: Place) -> str | None:
    """The name of the well that an image of a plate is of: `plate-A-1`; None if it is of none."""
    outer = outer_zarr(path)
    return None if outer is None or len(path.relative_to(outer).parts) != 3 else stem_of(path.parent)


def by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """The files by their stems.

    Raises:
        DataError: two files have the same stem, so that it is not clear which one is meant.
    """
    found: dict[str, Path] = {}
    doubled: list[str] = []
    for path in files:
        stem = stem_of(path)
        if stem in found:
            doubled.append(f"{found[stem]} and {path.name}")
        found.setdefault(stem, path)
    if doubled:
        raise DataError(
            f"files that differ only in their format, so it is not clear which one is meant; keep one of each:\n"
            f"{list_files(doubled)}"
        )
    return found


def identify(path: Place) -> str:
    """SHA-256 of where a file is, its size and when it was changed: cheap, and another one after any change.

    Of the web, changes of the metadata alone are seen, and when the server says that they were written.

    Raises:
        ImageError: there is no image at an address.
    """
    if isinstance(path, Address):
        return web_state(path)
    digest = hashlib.sha256(str(path.resolve()).encode())
    for part in _parts(path):
        state = part.stat()
        digest.update(f"\n{part.relative_to(path)}|{state.st_size}|{state.st_mtime_ns}".encode())
    return digest.hexdigest()


def hash_content(path: Place) -> str:
    """SHA-256 of the content: of a file its bytes, of an OME-Zarr folder the names and bytes of its files; of one on the web, which
    would have to be fetched for that, what `identify` says.
    """
    if isinstance(path, Address):
        return identify(path)
    digest = hashlib.sha256()
    for part in _parts(path):
        digest.update(f"{part.relative_to(path).as_posix()}|{sha256(part)}\n".encode())
    return digest.hexdigest()


def _parts(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file())
    else:
        yield path
