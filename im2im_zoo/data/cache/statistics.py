"""The statistics of an image, taken once and kept as a small JSON file beside where its preprocessed file is, or would be."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from im2im_zoo.core.atomic import write_text


def read_statistics(file: Path) -> dict[str, Any]:
    """What is known of the image whose preprocessed file is, or would be, `file`; nothing if nothing is kept."""
    try:
        known = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def write_statistics(file: Path, measured: Mapping[str, Any]) -> None:
    """Write what was measured, in one step; without space, or if it is not finite, it is measured again the next time."""
    with suppress(OSError, ValueError):
        write_text(file.with_suffix(".json"), json.dumps(measured, allow_nan=False))
