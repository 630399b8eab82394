"""Hashes of the contents of files, remembered beside a kept cache until a file is changed. Computes none itself."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from im2im_zoo.core.atomic import write_json
from im2im_zoo.data.pairing.files import hash_content, identify
from im2im_zoo.images import Place

_FILE = "hashes.json"


@contextmanager
def remembered(folder: Path | None) -> Iterator[Callable[[Place], str]]:
    """`hash_content` that reads a file only if it is not known, or was changed since.

    Args:
        folder: of the cache; None: nothing is remembered.
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
    """Write in one step; what another process adds meanwhile may be lost, and is then computed again."""
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, known)
