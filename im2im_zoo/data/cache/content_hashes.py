"""Content hashes of files, kept beside the cache until a file changes."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from im2im_zoo.core.atomic import write_json
from im2im_zoo.data.pairing.files import hash_content, identify
from im2im_zoo.images import Place

_FILE = "hashes.json"


@contextmanager
def remember_hashes(folder: Path | None) -> Iterator[Callable[[Place], str]]:
    """Yield a `hash_content` that reads a file only if it is new or changed.

    Args:
        folder: of the cache; None: no hashes are kept.
    """
    if folder is None:
        yield hash_content
        return
    known = _read(folder / _FILE)
    before = len(known)

    def content(path: Place) -> str:
        identity = identify(path)
        if identity not in known:
            known[identity] = hash_content(path)
        return known[identity]

    yield content
    if len(known) > before:
        _write(folder / _FILE, known)


def _read(file: Path) -> dict[str, str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(file: Path, known: dict[str, str]) -> None:
    """Write the hashes atomically; those that another process adds meanwhile may be lost, and are then computed again."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
