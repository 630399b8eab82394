"""Operations of a recipe whose numbers training measures: standardisation by the data set, and scaling back by the same numbers.

    input:  {preprocessing: [{id: fixed_zero_mean_unit_variance}]}
    output: {postprocessing: [{id: scale_linear, kwargs: {gain: std, offset: mean}}]}

Until they are filled in, these operations have the largest float for their numbers, with which no image can be processed.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from bioimageio.spec.model import v0_5 as spec

if TYPE_CHECKING:
    from im2im_zoo.recipe.schema import Recipe

STANDARDIZE = "fixed_zero_mean_unit_variance"
SCALE_BACK = "scale_linear"
PLACEHOLDER = sys.float_info.max
MeasuredSide = Literal["input", "target"]
Numbers: TypeAlias = float | Sequence[float]
"""One number, or one for each channel."""


def with_open_operations(content: Any) -> Any:
    """Return the plain values of a recipe with placeholders for numbers that operations leave open."""
    if not isinstance(content, Mapping):
        return content
    made = dict(content)
    for section, key in (
        ("input", "preprocessing"),
        ("target", "preprocessing"),
        ("output", "postprocessing"),
    ):
        part = made.get(section)
        operations = part.get(key) if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and isinstance(operations, list | tuple):
            made[section] = {**part, key: [_open_operation(o, section) for o in operations]}
    return made


def with_words(content: dict[str, Any]) -> dict[str, Any]:
    """Return the plain values of a dumped recipe as a user writes them: without placeholders."""
    for section, key in (
        ("input", "preprocessing"),
        ("target", "preprocessing"),
        ("output", "postprocessing"),
    ):
        for operation in content.get(section, {}).get(key, ()):
            kwargs = operation.get("kwargs", {})
            if operation["id"] == STANDARDIZE and _is_placeholder(kwargs.get("std")):
                del operation["kwargs"]
            elif operation["id"] == SCALE_BACK and _is_placeholder(kwargs.get("gain")):
                operation["kwargs"] = {"gain": "std", "offset": "mean"}
    return content


def _open_operation(operation: Any, section: str) -> Any:
    """Return an operation with placeholders for its numbers if they are left open, otherwise what was given."""
    if not isinstance(operation, Mapping) or not set(operation) <= {"id", "kwargs"}:
        return operation
    kwargs = operation.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        return operation
    if operation.get("id") == STANDARDIZE and section != "output":
        given = {key: value for key, value in kwargs.items() if value is not None}
        if not given or (set(given) == {"axis"} and given["axis"] == "channel"):
            return {"id": STANDARDIZE, "kwargs": {"mean": PLACEHOLDER, "std": PLACEHOLDER}}
    by_words = not kwargs or (kwargs.get("gain"), kwargs.get("offset")) == ("std", "mean")
    if operation.get("id") == SCALE_BACK and section == "output" and by_words:
        return {"id": SCALE_BACK, "kwargs": {"gain": PLACEHOLDER, "offset": PLACEHOLDER}}
    return operation


def find_open(recipe: "Recipe", side: MeasuredSide) -> int | None:
    """Return the position of the standardisation of a side whose numbers are left open; None if there is none."""
    return next((i for i, o in enumerate(getattr(recipe, side).preprocessing) if is_open(o)), None)


def find_stated(recipe: "Recipe", side: MeasuredSide) -> int | None:
    """Return the position of the standardisation of a side whose numbers are stated; None if there is none."""
    operations = getattr(recipe, side).preprocessing
    return next((i for i, o in enumerate(operations) if o.id == STANDARDIZE and not is_open(o)), None)


def is_open(operation: Any) -> bool:
    """Return whether the numbers of an operation are left open."""
    kwargs = getattr(operation, "kwargs", None)
    key = {STANDARDIZE: "std", SCALE_BACK: "gain"}.get(operation.id)
    return key is not None and _is_placeholder(getattr(kwargs, key, None))


def has_open(recipe: "Recipe") -> bool:
    """Return whether a recipe leaves any numbers open."""
    operations = (*recipe.input.preprocessing, *recipe.target.preprocessing, *recipe.output.postprocessing)
    return any(is_open(operation) for operation in operations)


def with_numbers(recipe: "Recipe", side: MeasuredSide, mean: Numbers, std: Numbers) -> "Recipe":
    """Return a recipe with the numbers of the open standardisation of a side.

    Args:
        recipe: a recipe.
        side: of the standardisation.
        mean, std: one number each, or one for each channel.
    """
    place = find_open(recipe, side)
    if place is None:
        return recipe
    kwargs: Any = {"mean": mean, "std": std} if isinstance(mean, float) else {
        "axis": "channel", "mean": list(mean), "std": list(std)  # type: ignore[arg-type]
    }  # fmt: skip
    section = getattr(recipe, side)
    operations = list(section.preprocessing)
    operations[place] = spec.FixedZeroMeanUnitVarianceDescr.model_validate(
        {"id": STANDARDIZE, "kwargs": kwargs}
    )
    return recipe.model_copy(update={side: section.model_copy(update={"preprocessing": tuple(operations)})})


def with_scale_back(recipe: "Recipe") -> "Recipe":
    """Return a recipe whose open scaling of the output has the numbers of the standardisation that it inverts.

    It is that of the target, or of the input if the target has none, or with `pairing: self`.

    Raises:
        RecipeError: there is no standardisation with numbers.
    """
    from im2im_zoo.core.errors import RecipeError

    operations = list(recipe.output.postprocessing)
    if not any(is_open(operation) for operation in operations):
        return recipe
    sides: tuple[MeasuredSide, ...] = ("input",) if recipe.data.pairing == "self" else ("target", "input")
    found = [(side, place) for side in sides if (place := find_stated(recipe, side)) is not None]
    if not found:
        raise RecipeError(
            f"output.postprocessing: {SCALE_BACK} scales by the mean and standard deviation of a {STANDARDIZE}, but neither "
            "target.preprocessing nor input.preprocessing has one; add it, or give gain and offset as numbers"
        )
    side, place = found[0]
    numbers: Any = getattr(recipe, side).preprocessing[place].kwargs
    axis = getattr(numbers, "axis", None)
    kwargs = {"gain": numbers.std, "offset": numbers.mean} | ({} if axis is None else {"axis": str(axis)})
    made = spec.ScaleLinearDescr.model_validate({"id": SCALE_BACK, "kwargs": kwargs})
    operations = [made if is_open(operation) else operation for operation in operations]
    output = recipe.output.model_copy(update={"postprocessing": tuple(operations)})
    return recipe.model_copy(update={"output": output})


def _is_placeholder(value: object) -> bool:
    return value == PLACEHOLDER
