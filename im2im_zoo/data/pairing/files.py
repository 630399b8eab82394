"""Image files of a folder: listing, stems, identity and content hashes.

An OME-Zarr image is a folder, but counts as one file here. A plate counts as the images of its wells. An image on the web
is identified by its address and its metadata.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from im2im_zoo.core.errors import DataError
from im2im_zoo.core.hashing import sha256, sha256_of_parts
from im2im_zoo.images import Address, Place, is_image_file, plate_images, stem_of, web_state
from im2im_zoo.images.names import outer_zarr
from im2im_zoo.images.registry import known_suffixes

_SHOWN = 10


def format_file_list(names: Iterable[object], *, indent: str = "  ") -> str:
    """Format names for a message, one a line: at most ten, and the number of the others."""
    words = [str(name) for name in names]
    lines = [f"{indent}{word}" for word in words[:_SHOWN]]
    if len(words) > _SHOWN:
        lines.append(f"{indent}and {len(words) - _SHOWN} more")
    return "\n".join(lines)


def list_images(folder: Path, what: str) -> list[Path]:
    """List the images directly in a folder, sorted by name; for plates, the images of their wells.

    Args:
        folder: of the images.
        what: kind of images and the key of their folder, for messages: "inputs (data.input)".

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not folder.is_dir():
        there = (
            sorted(p.name for p in folder.parent.iterdir() if p.is_dir()) if folder.parent.is_dir() else []
        )
        hint = f"; the folders in {folder.parent} are {', '.join(there[:_SHOWN])}" if there else ""
        raise DataError(f"{what}: there is no folder {folder.absolute()}{hint}")
    found = sorted((p for p in folder.iterdir() if is_image_file(p)), key=lambda p: p.name)
    if not found:
        others = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
        raise DataError(
            f"{what}: no images in {folder.absolute()}; expected files that end in "
            f"{', '.join(known_suffixes())}, "
            + (f"but there are only\n{format_file_list(others)}" if others else "but the folder is empty")
        )
    return expand_plates(found)


def expand_plates(files: Sequence[Path]) -> list[Path]:
    """Replace each plate among files by the images of its wells.

    Raises:
        ImageError: a damaged plate.
    """
    return [field for path in files for field in ((plate_images(path) if path.is_dir() else None) or [path])]


def find_well(path: Place) -> str | None:
    """Return the name of the well of an image of a plate: `plate-A-1`; None for other images."""
    outer = outer_zarr(path)
    return None if outer is None or len(path.relative_to(outer).parts) != 3 else stem_of(path.parent)


def index_by_stem(files: Sequence[Path]) -> dict[str, Path]:
    """Return the files by their stems.

    Raises:
        DataError: two files have the same stem.
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
            "files that differ only in their format, so it is not clear which one to use; keep one of each:\n"
            f"{format_file_list(doubled)}"
        )
    return found


def identify(path: Place) -> str:
    """Return the SHA-256 of a file's path, size and modification time: cheap, and different after any change.

    For an image on the web it covers only the metadata, and when the server reports that they were written.

    Raises:
        ImageError: there is no image at an address.
    """
    if isinstance(path, Address):
        return web_state(path)
    states = ((part.relative_to(path), part.stat()) for part in _list_parts(path))
    lines = (f"\n{name}|{state.st_size}|{state.st_mtime_ns}" for name, state in states)
    return sha256_of_parts([str(path.resolve()), *lines])


def hash_content(path: Place) -> str:
    """Return the SHA-256 of the bytes of a file, or of the names and bytes in an OME-Zarr folder.

    For an image on the web, which would have to be downloaded, it is the result of `identify`.
    """
    if isinstance(path, Address):
        return identify(path)
    return sha256_of_parts(
        f"{part.relative_to(path).as_posix()}|{sha256(part)}\n" for part in _list_parts(path)
    )


def _list_parts(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from sorted(p for p in path.rglob("*") if p.is_file())
    else:
        yield path
