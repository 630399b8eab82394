"""The user's cache of measurements: small JSON files, named by the hash of everything that a measurement depends on."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import platformdirs

from im2im_zoo.core.atomic import write_text


def cache_file(kind: str, key: str, folder: Path | None = None) -> Path:
    """Return the cache file of a measurement.

    Args:
        kind: of measurement; the name of its folder.
        key: hash of everything that the measurement depends on.
        folder: that holds the file (default: a folder of the user's cache).
    """
    return (folder or Path(platformdirs.user_cache_dir("im2im_zoo")) / kind) / f"{key}.json"


def read_cache(file: Path) -> dict[str, Any] | None:
    """Return the content of a cache file; None if it is missing or damaged."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def write_cache(file: Path, content: dict[str, Any]) -> None:
    """Write a cache file atomically; do nothing if the cache is not writable."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(content))
