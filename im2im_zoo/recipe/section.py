"""What the sections of a recipe have in common: that they are frozen, and how axes are written. Says nothing of any of them."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from im2im_zoo.core.axes import AxisName, parse_axes
from im2im_zoo.core.errors import AxesError


def _axes(value: object) -> object:
    if not isinstance(value, str | list | tuple):
        return value
    try:
        return parse_axes(value)
    except AxesError as error:
        raise ValueError(str(error)) from error


def _letters(value: str | None) -> str | None:
    if value is not None:
        _axes(value)
    return value


Axes = Annotated[tuple[AxisName, ...], BeforeValidator(_axes)]
FileAxes = Annotated[str | None, AfterValidator(_letters)]


class Section(BaseModel):
    """A part of a recipe: frozen, and without keys that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
