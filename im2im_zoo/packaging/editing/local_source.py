"""Files of a package that its RDF names."""

from collections.abc import Mapping
from pathlib import Path


def local_source(entry: object, folder: Path) -> str | None:
    """Return the name of a file inside a package; None for an address, a missing file, or one outside the package.

    Args:
        entry: a name, or a mapping with the key `source`.
        folder: folder of the package.
    """
    source = entry.get("source") if isinstance(entry, Mapping) else entry
    if not isinstance(source, str) or "://" in source:
        return None
    try:
        path = (folder / source).resolve()
        return source if path.is_file() and path.is_relative_to(folder.resolve()) else None
    except (OSError, ValueError):  # a name that is too long, or holds a zero byte
        return None
