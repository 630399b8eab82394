"""Verification of a package's files by the SHA-256 in its RDF."""

from collections.abc import Mapping
from typing import NamedTuple

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.nested import walk_values
from im2im_zoo.package import Package


class HashMismatch(NamedTuple):
    """A file whose SHA-256 differs from the RDF's."""

    file: str
    expected: str
    actual: str


def check_hashes(package: Package) -> list[HashMismatch]:
    """Return the files of the package whose SHA-256 differs from the RDF's; absent files are not listed."""
    mismatches = []
    values = walk_values(package.description.model_dump(mode="json", exclude_none=True))
    files = [(v.get("source"), v.get("sha256")) for _, v in values if isinstance(v, Mapping)]
    for source, expected in sorted({(s, h) for s, h in files if isinstance(s, str) and isinstance(h, str)}):
        try:
            path = package.path(source)
        except PackageError:
            continue
        if path.is_file() and (actual := sha256(path)) != expected:
            mismatches.append(HashMismatch(source, expected, actual))
    return mismatches
