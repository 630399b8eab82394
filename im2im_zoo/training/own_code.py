"""Python files beside a recipe that it uses: the user's consent to them, and their copies in the run folder.

They are the sources of its `custom` operations, and modules that it names by dotted path. They are not run here.
"""

import sys
from collections.abc import Collection
from pathlib import Path

from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.core.atomic import write_bytes
from im2im_zoo.core.errors import ProcessingError, TrainingError
from im2im_zoo.processing.custom_code import our_operation, source_file
from im2im_zoo.recipe import Recipe

# The word for `--allow-code` that allows the sources of custom operations.
CUSTOM = "custom"


def check_custom_code(recipe: Recipe, root: Path | None, allow_code: Collection[str]) -> None:
    """Refuse custom operations that are not im2im_zoo's, unless the user has allowed them.

    Args:
        recipe: the recipe.
        root: its folder.
        allow_code: `custom` among them is the consent.

    Raises:
        TrainingError: no consent, or no such file.
    """
    for key, operation in _find_custom_operations(recipe):
        try:
            ours, path = our_operation(operation, root), source_file(operation, root)
        except ProcessingError as error:
            raise TrainingError(f"{key}: {error}") from error
        if not ours and CUSTOM not in allow_code:
            raise TrainingError(
                f"{key}: {path} is Python code that is not im2im_zoo's: read it, and pass --allow-code {CUSTOM} if you trust it"
            )


def allow_modules(root: Path | None, allow_code: Collection[str]) -> None:
    """Make the modules beside a recipe importable that the user has allowed by name."""
    for folder in {str(path.parent) for path in _find_modules(root, allow_code)} - set(sys.path):
        sys.path.append(folder)


def find_own_files(recipe: Recipe, root: Path | None, allow_code: Collection[str]) -> dict[str, Path]:
    """Return the Python files beside a recipe that it uses, by their paths relative to it."""
    files = {path.name: path for path in _find_modules(root, allow_code)}
    for _, operation in _find_custom_operations(recipe):
        if not our_operation(operation, root):
            files[str(operation.source)] = source_file(operation, root)
    return files


def copy_own_files(files: dict[str, Path], run: Path) -> None:
    """Copy Python files into the run folder, where `export` finds them.

    Args:
        files: by their paths relative to the recipe.
        run: the run folder.

    Raises:
        TrainingError: the resumed run was trained with another version of a file.
    """
    for name, path in files.items():
        kept = run / name
        if kept.is_file() and kept.read_bytes() != path.read_bytes():
            raise TrainingError(
                f"{path} differs from the version that {run} was trained with: restore it from {kept}, or give another --output"
            )
        if not kept.is_file():
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, path.read_bytes(), durable=True)


def _find_custom_operations(recipe: Recipe) -> list[tuple[str, spec.CustomProcessingDescr]]:
    """Return the custom operations of a recipe and their keys."""
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


def _find_modules(root: Path | None, allow_code: Collection[str]) -> list[Path]:
    if root is None:
        return []
    found = (root.resolve() / f"{name.split('.')[0]}.py" for name in allow_code if name != CUSTOM)
    return [path for path in found if path.is_file()]
