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

_CODES: Mapping[Subject, tuple[str, ...]] = {
    "files": ("open", "missing_file", "hash", "unhashed"),
    "safety": ("refused", "unsafe", "skipped"),
    "format": ("format",),
    "metadata": (
        "authors",
        "maintainers",
        "description",
        "cite",
        "license",
        "tags",
        "cover",
        "documentation",
    ),
    "links": ("remote_file", "link", "links_unchecked"),
    "weights": ("weights", "not_run", "weights_unchecked", "test_tensor", "test_output", "formats_differ"),
    "sizes": ("size",),
    "batch": ("batch", "batch_dependent"),
    "determinism": ("determinism",),
    "halo": ("halo", "halo_step"),
    "grouping": ("grouping",),
    "core": ("core", "core_differs"),
}
CODES: Mapping[str, Subject] = MappingProxyType(
    {code: subject for subject, codes in _CODES.items() for code in codes}
)
