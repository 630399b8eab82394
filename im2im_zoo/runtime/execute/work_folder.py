"""The folder of an unfinished prediction, next to its output."""

from pathlib import Path

from im2im_zoo.runtime.execute.ledger import Ledger

SUFFIX = ".incomplete"
# Bytes of the longest name of an output: file systems have names of 255, and the lock of the partial results has this suffix, too.
LONGEST_NAME = 255 - len(f"{SUFFIX}.lock")
# Subfolders of a prediction with several stages (see `delivery`).
MODEL_SCALE, IMAGE_SCALE = "model_scale", "image_scale"


def work_folder(output: Path) -> Path:
    """Return the folder of the partial results of an output."""
    return output.with_name(output.name + SUFFIX)


def find_unfinished(output: Path) -> Path | None:
    """Return the folder of an unfinished prediction of this output that can be resumed, or None."""
    folder = work_folder(Path(output))
    found = folder.is_dir() and any(Ledger.is_resumable(f) for f in (folder, folder / MODEL_SCALE))
    return folder if found else None
