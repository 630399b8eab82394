"""Conversion of values for the YAML of an RDF."""

from collections.abc import Mapping, Sequence
from typing import Any


def rounded(value: float) -> float | str:
    """Round to four digits, the accuracy of a metric of few images; infinity becomes text, as the format has none."""
    number = float(value)
    return float(f"{number:.4g}") if abs(number) < float("inf") else str(number)


def yaml_value(value: object) -> Any:
    """Return a value as mappings, lists and scalars of YAML; other objects become text."""
    if isinstance(value, Mapping):
        return {str(k): yaml_value(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [yaml_value(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
