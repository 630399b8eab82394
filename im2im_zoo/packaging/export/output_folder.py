"""Output folder and zip file of a package."""

import json
import re
import zipfile
from pathlib import Path

from im2im_zoo.core.atomic import (
    discard,
    file_identity,
    hidden_sibling,
    move_into_place,
    remove_leftovers,
    sync_tree,
    write_json,
)
from im2im_zoo.core.errors import PackageError
from im2im_zoo.packaging.try_page import is_try_page


def check_free(output: Path, zip_path: Path | None, overwrite: bool) -> None:
    """Check that a package and its zip may be written; what a killed export has moved there may be replaced.

    Raises:
        PackageError: an existing file that may not be replaced, or a path that names no folder.
    """
    for path in (output, zip_path):
        if path is not None and path.exists() and not overwrite and not _is_unfinished(output, path):
            raise PackageError(
                f"{path} already exists: choose another name, or overwrite=True (--overwrite) to replace it"
            )
    if output.is_file():
        raise PackageError(f"{output} is a file: name a folder for the package")
    if output.is_dir() and any(output.iterdir()) and not (output / "rdf.yaml").is_file():
        raise PackageError(
            f"{output} is a folder that is not a package, so it is not replaced: choose another folder"
        )
    if not re.search(r"\w", output.name):
        raise PackageError(f"{output} is not the name of a folder: choose a folder for the package")


def deliver(folder: Path, output: Path, zip_path: Path | None) -> None:
    """Move a finished package to its path, and its zip.

    A kill may come between the two: the file `.NAME.unfinished` beside the package states which are from this export until
    both are there, so that the same command can replace them.
    """
    noted, parts = _unfinished_file(output), {output: folder}
    if zip_path is not None:
        parts[zip_path] = hidden_sibling(zip_path, "partial")
    try:
        if zip_path is not None:
            write_zip(folder, parts[zip_path])
        for part in parts.values():
            sync_tree(part)
        write_json(noted, [file_identity(part) for part in parts.values()], durable=True)
        for path, part in parts.items():
            move_into_place(part, path, durable=True)
    finally:
        for part in parts.values():
            discard(part)
    noted.unlink()


def remove_leftovers_of(output: Path, zip_path: Path | None) -> None:
    """Remove what killed exports to these paths have left."""
    for path in (output, *([] if zip_path is None else [zip_path]), _unfinished_file(output)):
        remove_leftovers(path)


def is_unfinished_output(output: Path) -> bool:
    """Return whether a package was written by a process that was killed before its zip was there, too."""
    return _unfinished_file(output).is_file()


def _unfinished_file(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")


def _is_unfinished(output: Path, path: Path) -> bool:
    """Return whether a package or zip is from an export that was killed before both were at their paths."""
    try:
        noted = json.loads(_unfinished_file(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(noted, list) and file_identity(path) in noted


def write_zip(folder: Path, path: Path) -> None:
    """Write the package in a folder as a zip whose bytes depend on its files only: sorted, with one fixed time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        # Packages from others have folders, too.
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and not is_try_page(folder, p)):
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, file.read_bytes())
