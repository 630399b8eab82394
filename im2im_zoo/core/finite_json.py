"""JSON that every reader takes: NaN and Infinity, which JSON does not have, become null."""

import json
import math
from collections.abc import Mapping
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


def finite(value: Any) -> Any:
    """Return JSON values with None in place of each number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
