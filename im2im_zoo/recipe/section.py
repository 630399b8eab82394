"""Base class of a recipe's sections, and the field types of axes."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from im2im_zoo.core.axes import AxisName, parse_axes
from im2im_zoo.core.errors import AxesError


def _parse_axes(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        return value
    try:
        return parse_axes(value)
    except AxesError as error:
        raise ValueError(str(error)) from error


def _check_letters(value: str | None) -> str | None:
    if value is not None:
        _parse_axes(value)
    return value


Axes = Annotated[tuple[AxisName, ...], BeforeValidator(_parse_axes)]
FileAxes = Annotated[str | None, AfterValidator(_check_letters)]


class Section(BaseModel):
    """A section of a recipe: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
