"""The statistics of an image, taken once and kept as a small JSON file beside where its preprocessed file is, or would be."""

import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read_statistics(file: Path) -> dict[str, Any]:
    """What is known of the image whose preprocessed file is, or would be, `file`; nothing if nothing is kept."""
    try:
        known = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_statistics(file: Path, measured: Mapping[str, Any]) -> None:
    """Keep what was measured, at once or not at all; without space it is measured again the next time."""
    kept = file.with_suffix(".json")
    partial = kept.with_name(f"{kept.stem}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(json.dumps(measured), encoding="utf-8")
        partial.replace(kept)
    except OSError:
        partial.unlink(missing_ok=True)
