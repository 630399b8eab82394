"""Verification of a package's files by the SHA-256 in its RDF."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import Package

if TYPE_CHECKING:
    from bioimageio.spec.model.v0_5 import ModelDescr


class HashMismatch(NamedTuple):
    """A file whose SHA-256 differs from the RDF's."""

    file: str
    expected: str
    actual: str


def check_hashes(package: Package) -> list[HashMismatch]:
    """Return the files of the package whose SHA-256 differs from the RDF's; absent files are not listed."""
    mismatches = []
    for source, expected in _hashed_files(package.description):
        try:
            path = package.path(source)
        except PackageError:
            continue
        if path.is_file() and (actual := sha256(path)) != expected:
            mismatches.append(HashMismatch(source, expected, actual))
    return mismatches


def _hashed_files(description: "ModelDescr") -> list[tuple[str, str]]:
    return sorted(set(_walk_hashed(description.model_dump(mode="json", exclude_none=True))))


def _walk_hashed(value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        if isinstance(value.get("source"), str) and isinstance(value.get("sha256"), str):
            yield value["source"], value["sha256"]
        for inner in value.values():
            yield from _walk_hashed(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk_hashed(inner)
