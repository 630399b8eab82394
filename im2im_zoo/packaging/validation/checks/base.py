"""State of a validation, and limits of its memory."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from im2im_zoo.package import Package
from im2im_zoo.packaging.validation.finding_codes import CODES, Subject
from im2im_zoo.packaging.validation.findings import CoreVerdict, Finding, Note, Picture, Severity

# An RDF may declare any size; sizes of more voxels than this are not run. 512 MiB of float32.
MAX_ELEMENTS = 2**27


@dataclass
class Checks:
    """State of a running validation."""

    package: Package
    allow_code: bool
    findings: list[Finding] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)
    core: list[CoreVerdict] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    def add(self, severity: Severity, code: str, where: str, message: str) -> None:
        """Add a finding."""
        if code not in CODES:
            raise ValueError(f"{code!r} is not a code of findings")
        self.findings.append(Finding(severity, code, where, message))

    def note(self, subject: Subject, message: str) -> None:
        """Add a note on a passed check or a measurement."""
        self.notes.append(Note(subject, message))

    def has(self, *codes: str) -> bool:
        """Return whether there is an error with one of these codes."""
        return any(f.severity == "error" and f.code in codes for f in self.findings)


def fits(shape: Sequence[int]) -> bool:
    """Return whether an array of this shape is small enough to be run."""
    return math.prod(shape) <= MAX_ELEMENTS


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Limit the memory on Linux, so that oversized weights raise an error instead of killing the process."""
    if sys.platform != "linux":
        yield
        return
    import resource

    import psutil

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = psutil.Process().memory_info().data + psutil.virtual_memory().available
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
