"""Notes in a ledger of the outputs that are about to take their places, so that a killed run knows which are there.

A file or folder keeps its inode and time when it is renamed: an output with those that are noted is the one that the run has
finished, and not an older one that it was to replace, which may be in its place or, once they are swapped, in the run's folder.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from im2im_zoo.core.atomic import file_identity
from im2im_zoo.runtime.execute.ledger import Ledger

# The outputs that the tiles write, and those that later stages make of them.
TILES, RESULTS = "delivery of tiles", "delivery of results"


def note_delivery(ledger: Ledger, which: str, partial: Mapping[int, Path]) -> None:
    """Note finished outputs before they are moved to their paths.

    Args:
        ledger: of the run.
        which: `TILES` or `RESULTS`.
        partial: where they are, by number; one that is missing is left out.
    """
    known = dict(ledger.notes.get(which) or {})
    ledger.note(which, known | {str(n): file_identity(p) for n, p in partial.items() if p.exists()})


def delivered(folder: Path, which: str, paths: Sequence[Path]) -> frozenset[int]:
    """Return the numbers of the outputs that a run has moved to their paths.

    Args:
        folder: of its ledger.
        which: `TILES` or `RESULTS`.
        paths: of the outputs.
    """
    noted = Ledger.noted(folder, which) or {}
    return frozenset(
        n for n, path in enumerate(paths) if path.exists() and noted.get(str(n)) == file_identity(path)
    )
