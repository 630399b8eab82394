"""Where a package may be written, and its zip. Builds no package."""

import re
import zipfile
from pathlib import Path

from im2im_zoo.core.atomic import atomic_output
from im2im_zoo.core.errors import PackageError


def check_free(output: Path, zip_path: Path | None, overwrite: bool) -> None:
    for path in (output, zip_path):
        if path is not None and path.exists() and not overwrite:
            raise PackageError(
                f"{path} exists: give another name, or overwrite=True (--overwrite) to replace it"
            )
    if output.is_file():
        raise PackageError(f"{output} is a file: name a folder for the package")
    if output.is_dir() and any(output.iterdir()) and not (output / "rdf.yaml").is_file():
        raise PackageError(
            f"{output} is a folder that holds something else than a package: it is not replaced"
        )
    if not re.search(r"\w", output.name):
        raise PackageError(f"{output} names no folder for the package: give one")


def write_zip(folder: Path, path: Path, *, overwrite: bool) -> None:
    """Write the folder as a zip whose bytes depend on its files only: sorted, and all of one time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_output(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo(file.name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, file.read_bytes())
