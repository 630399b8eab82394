"""The Python files that lie beside a recipe and that it uses: consent to them, and their copies in the run folder.

They are the sources of its `custom` operations, and modules that it names by dotted path. Nothing of them is run here.
"""

import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.core.errors import ProcessingError, TrainingError
from im2im_zoo.processing.custom_code import our_operation, source_file
from im2im_zoo.recipe import Recipe

# What a person says to `--allow-code` for the sources of custom operations.
CUSTOM = "custom"


def check_custom_code(recipe: Recipe, root: Path | None, allow_code: Collection[str]) -> None:
    """Refuse a recipe with custom operations that are not ours and that nobody has allowed.

    Raises:
        TrainingError: no consent, or no such file.
    """
    for key, operation in _custom(recipe):
        try:
            ours, path = our_operation(operation, root), source_file(operation, root)
        except ProcessingError as error:
            raise TrainingError(f"{key}: {error}") from error
        if not ours and CUSTOM not in allow_code:
            raise TrainingError(
                f"{key}: {path} is Python code that is not im2im_zoo's: read it, and say --allow-code {CUSTOM} if you trust it"
            )


def find_modules(root: Path | None, allow_code: Collection[str]) -> None:
    """Let the modules beside a recipe be imported that a person has allowed by name."""
    for folder in {str(path.parent) for path in _modules(root, allow_code)} - set(sys.path):
        sys.path.append(folder)


def own_files(recipe: Recipe, root: Path | None, allow_code: Collection[str]) -> dict[str, Path]:
    """Files beside the recipe that it uses, by their paths relative to it."""
    files = {path.name: path for path in _modules(root, allow_code)}
    for _, operation in _custom(recipe):
        if not our_operation(operation, root):
            files[str(operation.source)] = source_file(operation, root)
    return files


def keep_own_files(files: dict[str, Path], run: Path) -> None:
    """Copy them into the run folder, where `export` finds them.

    Raises:
        TrainingError: the run that is resumed was trained with another version of one.
    """
    for name, path in files.items():
        kept = run / name
        if kept.is_file() and kept.read_bytes() != path.read_bytes():
            raise TrainingError(
                f"{path} is not what {run} was trained with: give another --output, or take it back from {kept}"
            )
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept)


def _custom(recipe: Recipe) -> list[tuple[str, spec.CustomProcessingDescr]]:
    """Custom operations and their keys."""
    sections = {
        "input.preprocessing": recipe.input.preprocessing,
        "target.preprocessing": recipe.target.preprocessing,
        "output.postprocessing": recipe.output.postprocessing,
    }
    return [
        (f"{key}.{number}", operation)
        for key, operations in sections.items()
        for number, operation in enumerate(operations)
        if operation.id == "custom"
    ]


def _modules(root: Path | None, allow_code: Collection[str]) -> list[Path]:
    if root is None:
        return []
    found = (root.resolve() / f"{name.split('.')[0]}.py" for name in allow_code if name != CUSTOM)
    return [path for path in found if path.is_file()]
