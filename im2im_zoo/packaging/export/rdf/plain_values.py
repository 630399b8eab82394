"""Values as the YAML of an RDF has them."""

from collections.abc import Mapping, Sequence
from typing import Any


def rounded(value: float) -> float | str:
    """Four digits: what a figure from few images can say. YAML of the format knows no infinity."""
    number = float(value)
    return float(f"{number:.4g}") if abs(number) < float("inf") else str(number)


def yaml_value(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(k): yaml_value(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [yaml_value(v) for v in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
