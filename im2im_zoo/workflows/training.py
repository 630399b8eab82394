"""Training by one call: a recipe by name or path, with some keys overridden, and a page of the run."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import find_recipe, load_recipe

if TYPE_CHECKING:
    from im2im_zoo.data.patches.advice import Choice
    from im2im_zoo.training.callbacks import TrainingProgress
    from im2im_zoo.training.run import TrainingRun

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def train(
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    report: "Callable[[TrainingProgress], None] | None" = None,
    explain: "Callable[[Choice], None] | None" = None,
    warn: Callable[[str], None] | None = None,
    page_interval_s: float = 120.0,
) -> "TrainingRun":
    """Train a recipe, or resume its training.

    The page `run.html` in the run folder is written during training and at its end, also of a run that failed.

    Args:
        recipe: a name of `model_sources/`, the path of a YAML file or of its folder, or a `Recipe`.
        output: the run folder.
        overrides: dotted keys of the recipe and their values, e.g. `{"trainer.max_epochs": 20, "data.path": "images"}`.
        resume: continue from the last checkpoint of the run folder; the result is that of an uninterrupted training.
        allow_code: packages whose code the recipe may use beside the trusted ones.
        root: folder of the recipe's own Python files (default: the folder of the recipe).
        report: called with the progress, after batches and at the end of each epoch.
        explain: called before training with each value that was selected or measured for the images and this machine.
        warn: called before training with a message for each number of the recipe that is far from the images'.
        page_interval_s: seconds between updates of the page, which take a few seconds each.

    Returns:
        The finished run; `export_run` makes a package of it.

    Raises:
        Im2ImError: whatever is wrong with the recipe, the data or the folder. An interrupted run can be resumed.

    Example:
        >>> import im2im_zoo as zoo
        >>> try:
        ...     zoo.train("nuclei_2d", output="run", overrides={"data.path": "nowhere"})
        ... except zoo.core.errors.DataError as error:
        ...     print("does not exist" in str(error))
        True
    """
    from im2im_zoo.training.run import is_run, open_run
    from im2im_zoo.training.train import train as run_training
    from im2im_zoo.workflows.run_page import write_run_page

    if not isinstance(recipe, Recipe):
        root = root or find_recipe(recipe).parent
        recipe = load_recipe(recipe, tuple((overrides or {}).items()))
    elif overrides:
        raise ValueError("overrides are for a recipe given by name or path; change the Recipe instead")
    output, written = Path(output), time.monotonic()
    # Otherwise it is another run, which training does not overwrite.
    is_own = is_first_process() and (resume or not is_run(output))

    def write_page() -> None:
        if is_own and is_run(output):
            write_run_page(open_run(output))

    def report_progress(state: "TrainingProgress") -> None:
        nonlocal written
        if report is not None:
            report(state)
        if time.monotonic() - written > page_interval_s:
            write_page()
            written = time.monotonic()

    try:
        run = run_training(
            recipe,
            output,
            resume=resume,
            allow_code=allow_code,
            root=root,
            report=report_progress,
            explain=explain,
            warn=warn,
        )
    except BaseException:
        with suppress(Im2ImError):  # the error of the training is the one to report
            write_page()
        raise
    write_page()
    return run


def is_first_process() -> bool:
    """Return whether this process writes the run folder: the only one, or the first of a distributed training.

    Lightning, or a cluster, starts the other processes by the same command.
    """
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)
