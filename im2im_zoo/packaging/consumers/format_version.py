"""Oldest model format 0.5.x, from 0.5.1 on, that supports everything in an RDF.

Programs lag behind the format and refuse unknown fields, but any of them reads an older 0.5.x; except 0.5.0, which QuPath
takes for 0.4 and cannot open (bioimageio.spec 0.5.0, the first reader of 0.5, takes 0.5.1 as its own). The versions are those of
bioimageio.spec's changelog and of its schemas, tried with the libraries themselves.
"""

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

OLDEST = "0.5.1"

# The first version that has an operation.
_OPERATIONS = {"softmax": "0.5.5", "stardist_postprocessing": "0.5.9", "custom": "0.5.10"}
# Fields that were not always optional.
_ONCE_REQUIRED = ("authors", "cite", "license", "documentation", "covers", "description")


def oldest_format(rdf: Mapping[str, Any]) -> str:
    """Return the oldest format that has everything that an RDF of format 0.5 uses.

    Args:
        rdf: the RDF as plain values.
    """
    return max(_needed(rdf), key=version_key)


def version_key(version: str) -> tuple[int, ...]:
    """Return numbers to compare versions by."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def is_identifier(name: str) -> bool:
    """Return whether the formats before 0.5.11 accept a name of a channel."""
    return name.isidentifier() and not keyword.iskeyword(name)


def as_identifier(name: str) -> str:
    """Return the nearest name that is an identifier: `DAPI 405` becomes `DAPI_405`."""
    plain = re.sub(r"\W+", "_", name.strip()).strip("_") or "channel"
    return plain if is_identifier(plain) else f"_{plain}"


def channel_names(names: Sequence[str]) -> list[str]:
    """Return the names of channels as all formats accept them; equal ones are numbered."""
    plain = [as_identifier(name) for name in names]
    return [n if plain.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(plain)]


def _needed(rdf: Mapping[str, Any]) -> Iterator[str]:
    yield OLDEST
    tensors = [*(rdf.get("inputs") or ()), *(rdf.get("outputs") or ())]
    if any(t.get("optional") for t in tensors):
        yield "0.5.1"
    if any(axis.get("concatenable") for t in tensors for axis in t.get("axes") or ()):
        yield "0.5.2"
    weights = [entry for entry in (rdf.get("weights") or {}).values() if isinstance(entry, Mapping)]
    if "+" in str(rdf.get("name", "")) or any(entry.get("comment") for entry in weights):
        yield "0.5.4"
    if not all(rdf.get(field) for field in _ONCE_REQUIRED) or rdf.get("version_comment"):
        yield "0.5.5"
    if not all(t.get("test_tensor") for t in tensors):
        yield "0.5.5"
    if any(entry.get("external_data") for entry in weights):
        yield "0.5.6"
    if "keras_v3" in (rdf.get("weights") or {}):
        yield "0.5.8"
    names = [n for t in tensors for axis in t.get("axes") or () for n in axis.get("channel_names") or ()]
    files = [rdf.get("documentation"), *(rdf.get("covers") or ())]
    if not all(is_identifier(str(n)) for n in names) or any(isinstance(f, Mapping) for f in files):
        yield "0.5.11"
    for tensor in tensors:
        for operation in (*(tensor.get("preprocessing") or ()), *(tensor.get("postprocessing") or ())):
            yield _needed_by_operation(operation)


def _needed_by_operation(operation: Mapping[str, Any]) -> str:
    name, kwargs = operation.get("id"), operation.get("kwargs") or {}
    if name == "clip" and any(kwargs.get(k) is not None for k in ("min_percentile", "max_percentile")):
        return "0.5.7"
    if name == "binarize" and isinstance(kwargs.get("threshold"), list):
        return "0.5.1"
    return _OPERATIONS.get(str(name), OLDEST)
