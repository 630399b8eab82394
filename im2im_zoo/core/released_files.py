"""Table of the Python files that packages ship, for every version of im2im_zoo, and its look-ups.

A package has the files of its instance method and of its custom operations. A file with a SHA-256 in this table runs
without consent, whichever version exported it. Entries of released versions stay for ever, because packages have these files.

To change a file that packages ship, even a comment of it:

    1. keep the entries of the released versions;
    2. add one with the new SHA-256 and the coming version (one of the same coming version is replaced);
    3. if the new file gives other results for the same maps, arguments or defaults, then today's implementation in
       blocks is no longer that of the earlier files: set their `implementation` to None.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["instance method", "operation"]


@dataclass(frozen=True, slots=True)
class ReleasedFile:
    """One file, byte for byte.

    Attributes:
        name: of the file, as versions had it; a package may have it under another.
        versions: of im2im_zoo that export it.
        sha256: of its bytes.
        kind: an instance method (maps to labels), or an operation of the processing.
        callable: its only function that runs without consent.
        implementation: name of the current one with the same results, which for an instance method also finds labels in
            blocks. None if there is none: the file still runs without consent, but in blocks like any other.
    """

    name: str
    versions: tuple[str, ...]
    sha256: str
    kind: Kind
    callable: str
    implementation: str | None


RELEASED_FILES: tuple[ReleasedFile, ...] = (
    ReleasedFile(
        name="components.py",
        versions=("0.1.0",),
        sha256="6b4d951e0c305880bebf42dfda17b51c1ca4f4de049291ab6cb468d9215d00cb",
        kind="instance method",
        callable="group",
        implementation="components",
    ),
    ReleasedFile(
        name="components.py",
        versions=("0.2.0",),
        sha256="a9367a8db1d2d451bf4e99dee6a243acfddbfc171ff25cb40152bef9dd992ced",
        kind="instance method",
        callable="group",
        implementation="components",
    ),
    ReleasedFile(
        name="embedseg.py",
        versions=("0.1.0",),
        sha256="40227102aed04400ab2ed05785d6d5d4d7ab660177a9d7dd201a13cdcd5d5813",
        kind="instance method",
        callable="group",
        implementation="embedseg",
    ),
    ReleasedFile(
        name="watershed.py",
        versions=("0.1.0",),
        sha256="0f53c3e48cea5dc9c2cd12b4ded9812086ba947b2dfbd15a9f748c5df79ef5f6",
        kind="instance method",
        callable="group",
        implementation="watershed",
    ),
    ReleasedFile(
        name="centre_normalisation.py",
        versions=("0.1.0",),
        sha256="a0c135da8e9142d83f4ec44a2ba3ae3c0a2c32b8df49ca01111e86a52b43c82b",
        kind="operation",
        callable="centre_normalisation",
        implementation="centre_normalisation",
    ),
    ReleasedFile(
        name="macenko.py",
        versions=("0.1.0",),
        sha256="ea63d5ab148a98fae8b3d939929b63f45705ebd3e6c916f1044a5f745ce1aa69",
        kind="operation",
        callable="macenko",
        implementation="macenko",
    ),
)


def trusted_callables(kind: Kind) -> dict[str, str]:
    """Return the function that runs without consent in each file of a kind, by the SHA-256 of the file."""
    return {file.sha256: file.callable for file in RELEASED_FILES if file.kind == kind}


def find_released(kind: Kind, sha256: str, callable: str) -> ReleasedFile | None:
    """Return the entry of a file by its bytes, or None if it is not in the table or the function is not the trusted one."""
    matches = (f for f in RELEASED_FILES if (f.kind, f.sha256, f.callable) == (kind, sha256, callable))
    return next(matches, None)
