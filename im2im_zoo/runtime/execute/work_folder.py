"""The folder of an unfinished prediction, beside its output."""

from pathlib import Path

from im2im_zoo.runtime.execute.ledger import Ledger

SUFFIX = ".incomplete"
# Subfolders of a prediction whose outputs are made in several stages (see `delivery`).
MODEL_SCALE, IMAGE_SCALE = "model_scale", "image_scale"


def work_folder(output: Path) -> Path:
    """Return the folder in which an output is made before it appears."""
    return output.with_name(output.name + SUFFIX)


def unfinished(output: Path) -> Path | None:
    """Return the folder of an unfinished prediction of this output, if there is one."""
    folder = work_folder(Path(output))
    found = folder.is_dir() and any(Ledger.exists(f) for f in (folder, folder / MODEL_SCALE))
    return folder if found else None
