"""JSON that every reader takes (NaN and Infinity, which JSON does not have, become null), and reading of JSON files."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def to_json(content: object, **options: Any) -> str:
    """Return content as JSON.

    Args:
        content: JSON values.
        options: of `json.dumps`, e.g. `indent`, `default`.

    Examples:
        >>> to_json({"loss": float("nan"), "epoch": 3})
        '{"loss": null, "epoch": 3}'
    """
    return json.dumps(finite(content), allow_nan=False, **options)


def read_json_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if the file is missing, damaged, or holds something else."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def finite(value: Any) -> Any:
    """Return JSON values with None in place of each number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
