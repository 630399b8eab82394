"""The user's cache of what was measured: small JSON files by the hash of all that they depend on. It measures nothing."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import platformdirs


def cache_file(kind: str, key: str, folder: Path | None = None) -> Path:
    """Where a measurement is kept.

    Args:
        kind: of measurement, a folder's name.
        key: a hash of all that it depends on.
        folder: in which it is kept (default: the user's cache).
    """
    return (folder or Path(platformdirs.user_cache_dir("im2im_zoo")) / kind) / f"{key}.json"


def read_cache(file: Path) -> dict[str, Any] | None:
    """What was kept; None if there is nothing, or it is damaged."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def write_cache(file: Path, content: dict[str, Any]) -> None:
    """Keep something, at once or not at all. Without a place for a cache, it is measured again next time."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(content, stream)
        Path(partial).replace(file)
    except OSError:
        return
