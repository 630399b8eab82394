"""Content hashes of files, kept beside the cache until a file changes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from im2im_zoo.core.atomic import cache_json
from im2im_zoo.core.finite_json import read_json_object
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
    known: dict[str, str] = read_json_object(folder / _FILE)
    before = len(known)

    def content(path: Place) -> str:
        identity = identify(path)
        if identity not in known:
            known[identity] = hash_content(path)
        return known[identity]

    yield content
    if len(known) > before:
        # Hashes that another process adds meanwhile may be lost, and are then computed again.
        cache_json(folder / _FILE, known)
