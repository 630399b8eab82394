"""Leftovers of killed commands in a folder: hidden files and folders, partial results, locks. None that a running command uses."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.core.atomic import discard, find_leftovers_in, remove_folder
from im2im_zoo.core.errors import PlanError
from im2im_zoo.runtime.execute.delivered import RESULTS, TILES, delivered
from im2im_zoo.runtime.execute.ledger import Ledger
from im2im_zoo.runtime.execute.run_lock import hold_output, is_held, lock_file
from im2im_zoo.runtime.execute.work_folder import MODEL_SCALE, SUFFIX, find_unfinished


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file or folder that a killed command has left.

    Attributes:
        path: of the file or folder.
        kind: in words.
        work: the folder of the partial results that it is, or whose lock it is.
        is_resumable: whether the same command would resume from it.
    """

    path: Path
    kind: str
    work: Path | None = None
    is_resumable: bool = False


def find_leftovers(folder: Path) -> list[Leftover]:
    """Return what killed commands have left in a folder and in the labels of its images, sorted by path.

    What a running process of this machine is writing, and the partial results whose lock is held, are not among them.

    Raises:
        PlanError: the folder does not exist.
    """
    if not folder.is_dir():
        raise PlanError(f"{folder} is not a folder; give the folder of the outputs")
    places = [folder, *folder.glob("*.zarr/labels")]
    return sorted((found for place in places for found in _leftovers_in(place)), key=lambda found: found.path)


def remove_leftover(leftover: Leftover) -> None:
    """Remove a leftover; partial results and locks under the lock of their output.

    Raises:
        PlanError: a command is using it now.
    """
    if leftover.work is None:
        discard(leftover.path)
        return
    with hold_output(leftover.work):  # its end removes the file of the lock
        remove_folder(leftover.work)


def _leftovers_in(folder: Path) -> Iterator[Leftover]:
    for path in find_leftovers_in(folder):
        yield Leftover(path, "partly written or replaced by a killed command")
    for work in folder.glob(f"[!.]*{SUFFIX}"):
        if work.is_dir() and not is_held(work):
            output = work.with_name(work.name.removesuffix(SUFFIX))
            if _is_delivered(work, output):
                yield Leftover(work, "partial results of a finished output", work)
            elif find_unfinished(output) is not None:
                yield Leftover(work, "partial results; the same command resumes from them", work, True)
            else:
                yield Leftover(work, "partial results that cannot be resumed", work)
    ending = lock_file(Path(SUFFIX)).name
    for path in folder.glob(f"[!.]*{ending}"):
        work = path.with_name(path.name.removesuffix(ending) + SUFFIX)
        if not work.exists() and not is_held(work):
            yield Leftover(path, "lock of a killed command", work)


def _is_delivered(work: Path, output: Path) -> bool:
    """Return whether the only output of partial results has taken its place."""
    for folder, which in ((work, TILES), (work / MODEL_SCALE, RESULTS)):
        if len(Ledger.noted(folder, which) or ()) == 1 and delivered(folder, which, [output]):
            return True
    return False
