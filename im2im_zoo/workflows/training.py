"""Training by one call: a recipe by name or path, with some keys overridden."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import find_recipe, load_recipe

if TYPE_CHECKING:
    from im2im_zoo.training.callbacks import TrainingProgress
    from im2im_zoo.training.run import TrainingRun


def train(
    recipe: Recipe | str | Path,
    output: str | Path,
    *,
    overrides: Mapping[str, object] | None = None,
    resume: bool = False,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    report: "Callable[[TrainingProgress], None] | None" = None,
) -> "TrainingRun":
    """Train a recipe, or resume its training.

    Args:
        recipe: a name of `model_sources/`, the path of a YAML file or of its folder, or a `Recipe`.
        output: the run folder.
        overrides: dotted keys of the recipe and their values, e.g. `{"trainer.max_epochs": 20, "data.path": "images"}`.
        resume: continue from the last checkpoint of the run folder; the result is that of an uninterrupted training.
        allow_code: packages whose code the recipe may use beside the trusted ones.
        root: folder of the recipe's own Python files (default: the folder of the recipe).
        report: called with the progress, after batches and at the end of each epoch.

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
    from im2im_zoo.training.train import train as run_training

    if not isinstance(recipe, Recipe):
        root = root or find_recipe(recipe).parent
        recipe = load_recipe(recipe, tuple((overrides or {}).items()))
    elif overrides:
        raise ValueError("overrides are for a recipe given by name or path; change the Recipe instead")
    return run_training(recipe, Path(output), resume=resume, allow_code=allow_code, root=root, report=report)
