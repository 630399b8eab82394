"""Numbers of a recipe that training measures: those of a standardisation by the data set, and of scaling back by them."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from bioimageio.spec.model import v0_5 as spec

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe.placeholders import SCALE_BACK, STANDARDIZE, is_open
from im2im_zoo.recipe.schema import Recipe

MeasuredSide = Literal["input", "target"]
Numbers: TypeAlias = float | Sequence[float]
"""One number, or one for each channel."""


def find_open(recipe: Recipe, side: MeasuredSide) -> int | None:
    """Return the position of the standardisation of a side whose numbers are left open; None if there is none."""
    return next((i for i, o in enumerate(getattr(recipe, side).preprocessing) if is_open(o)), None)


def find_stated(recipe: Recipe, side: MeasuredSide) -> int | None:
    """Return the position of the standardisation of a side whose numbers are stated; None if there is none."""
    operations = getattr(recipe, side).preprocessing
    return next((i for i, o in enumerate(operations) if o.id == STANDARDIZE and not is_open(o)), None)


def with_numbers(recipe: Recipe, side: MeasuredSide, mean: Numbers, std: Numbers) -> Recipe:
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


def with_scale_back(recipe: Recipe) -> Recipe:
    """Return a recipe whose open scaling of the output has the numbers of the standardisation that it inverts.

    It is that of the target, or of the input if the target has none, or with `pairing: self`.

    Raises:
        RecipeError: there is no standardisation with numbers.
    """
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


def find_scaled_back(recipe: Recipe) -> int | None:
    """Return the position of the target's standardisation if the output's last scaling inverts it; None if it does not."""
    place = find_stated(recipe, "target")
    last = next((o for o in reversed(recipe.output.postprocessing) if o.id == SCALE_BACK), None)
    if place is None or last is None:
        return None
    numbers: Any = recipe.target.preprocessing[place].kwargs
    scaled: Any = last.kwargs
    return place if (scaled.gain, scaled.offset) == (numbers.std, numbers.mean) else None
