"""Nested JSON values, such as those of an RDF."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any


def walk_values(value: Any, where: str = "", *, without: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """Yield a value and all values in it, each with its field.

    Args:
        value: mappings, lists and anything else.
        where: its own field.
        without: keys of the outermost mapping that are left out.

    Examples:
        >>> [field for field, _ in walk_values({"cite": [{"doi": "10.1/2"}]})]
        ['', 'cite', 'cite[0]', 'cite[0].doi']
    """
    yield where, value
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in without:
                yield from walk_values(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from walk_values(inner, f"{where}[{i}]")


def our_entry(config: object, key: str) -> Any:
    """Return an entry of `config.im2im_zoo`, by the `config` of an RDF; None if there is none."""
    ours = config.get("im2im_zoo") if isinstance(config, Mapping) else None
    return ours.get(key) if isinstance(ours, Mapping) else None
