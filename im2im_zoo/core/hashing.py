"""SHA-256, as hexadecimal digits, of files, bytes and texts."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(content: bytes | str) -> str:
    """Return the SHA-256 of bytes, or of a text as UTF-8."""
    return sha256_of_parts([content])


def sha256_of_parts(parts: Iterable[bytes | str]) -> str:
    """Return the SHA-256 of all parts in a row, as `sha256_of` of each; only one is in memory at a time."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
