"""Operations of a recipe whose numbers training measures: standardisation by the data set, and scaling back by the same numbers.

    input:  {preprocessing: [{id: fixed_zero_mean_unit_variance}]}
    output: {postprocessing: [{id: scale_linear, kwargs: {gain: std, offset: mean}}]}

Until they are filled in, these operations have the largest float for their numbers, with which no image can be processed.
"""

import sys
from collections.abc import Mapping
from typing import Any

STANDARDIZE = "fixed_zero_mean_unit_variance"
SCALE_BACK = "scale_linear"
PLACEHOLDER = sys.float_info.max


def with_open_operations(content: Any) -> Any:
    """Return the plain values of a recipe with placeholders for numbers that operations leave open."""
    if not isinstance(content, Mapping):
        return content
    made = dict(content)
    for section, key in (
        ("input", "preprocessing"),
        ("target", "preprocessing"),
        ("output", "postprocessing"),
    ):
        part = made.get(section)
        operations = part.get(key) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and isinstance(operations, list | tuple):
            made[section] = {**part, key: [_open_operation(o, section) for o in operations]}
    return made


def with_words(content: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values of a dumped recipe as a user writes them: without placeholders."""
    for section, key in (
        ("input", "preprocessing"),
        ("target", "preprocessing"),
        ("output", "postprocessing"),
    ):
        for operation in content.get(section, {}).get(key, ()):
            kwargs = operation.get("kwargs", {})
            if operation["id"] == STANDARDIZE and _is_placeholder(kwargs.get("std")):
                del operation["kwargs"]
            elif operation["id"] == SCALE_BACK and _is_placeholder(kwargs.get("gain")):
                operation["kwargs"] = {"gain": "std", "offset": "mean"}
    return content


def _open_operation(operation: Any, section: str) -> Any:
    """Return an operation with placeholders for its numbers if they are left open, otherwise what was given."""
    if not isinstance(operation, Mapping) or not set(operation) <= {"id", "kwargs"}:
        return operation
    kwargs = operation.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        return operation
    if operation.get("id") == STANDARDIZE and section != "output":
        given = {key: value for key, value in kwargs.items() if value is not None}
        if not given or (set(given) == {"axis"} and given["axis"] == "channel"):
            return {"id": STANDARDIZE, "kwargs": {"mean": PLACEHOLDER, "std": PLACEHOLDER}}
    by_words = not kwargs or (kwargs.get("gain"), kwargs.get("offset")) == ("std", "mean")
    if operation.get("id") == SCALE_BACK and section == "output" and by_words:
        return {"id": SCALE_BACK, "kwargs": {"gain": PLACEHOLDER, "offset": PLACEHOLDER}}
    return operation


def is_open(operation: Any) -> bool:
    """Return whether the numbers of an operation are left open."""
    kwargs = getattr(operation, "kwargs", None)
    key = {STANDARDIZE: "std", SCALE_BACK: "gain"}.get(operation.id)
    return key is not None and _is_placeholder(getattr(kwargs, key, None))


def _is_placeholder(value: object) -> bool:
    return value == PLACEHOLDER
