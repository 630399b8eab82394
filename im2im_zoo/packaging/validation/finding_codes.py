"""The codes of findings: stable words for programs, each with its subject. docs/validate.md has a remedy for each."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Subject = Literal[
    "files",
    "safety",
    "format",
    "metadata",
    "links",
    "weights",
    "sizes",
    "batch",
    "determinism",
    "halo",
    "grouping",
    "core",
]

# In the order of the page.
SUBJECTS: Mapping[Subject, str] = MappingProxyType(
    {
        "files": "Files and hashes",
        "safety": "Safety",
        "format": "Format",
        "metadata": "Metadata",
        "links": "Links",
        "weights": "Weights against the test tensors",
        "sizes": "Sizes, on and off the grid",
        "batch": "Batch sizes",
        "determinism": "Determinism",
        "halo": "Halo",
        "grouping": "Grouping into instances",
        "core": "bioimageio.core",
    }
)

CODES: Mapping[str, Subject] = MappingProxyType(
    {
        "open": "files",
        "missing_file": "files",
        "hash": "files",
        "unhashed": "files",
        "refused": "safety",
        "unsafe": "safety",
        "skipped": "safety",
        "format": "format",
        "authors": "metadata",
        "maintainers": "metadata",
        "description": "metadata",
        "cite": "metadata",
        "license": "metadata",
        "tags": "metadata",
        "cover": "metadata",
        "documentation": "metadata",
        "remote_file": "links",
        "link": "links",
        "links_unchecked": "links",
        "weights": "weights",
        "not_run": "weights",
        "weights_unchecked": "weights",
        "test_tensor": "weights",
        "test_output": "weights",
        "formats_differ": "weights",
        "size": "sizes",
        "batch": "batch",
        "batch_dependent": "batch",
        "determinism": "determinism",
        "halo": "halo",
        "grouping": "grouping",
        "core": "core",
        "core_differs": "core",
    }
)
