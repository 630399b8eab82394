"""Templates to HTML, and the parts that several templates show: cards and images.

Templates escape every value. Only the stylesheet and charts are `Markup`, which is inserted as it is.
"""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Card:
    """One value in large type.

    Attributes:
        name: what the value is.
        value: the value as text.
        comparisons: values to compare with, as text.
        share: length of the bar below the value, 0 to 1; None for no bar.
        marks: positions of the comparisons on the bar, 0 to 1.
    """

    name: str
    value: str
    comparisons: tuple[str, ...] = ()
    share: float | None = None
    marks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PageImage:
    """One image with its caption.

    Attributes:
        title: printed bold above the caption, and first in the alternative text.
        src: a data URI; see `data_uri`.
        caption: printed below the title.
        description: alternative text after the title; default: the caption.
        size: (width, height) in pixels, if known.
        is_pixelated: whether enlarged pixels keep sharp borders.
        scale_bar: length as a share of the width, 0 to 1, and the text above the bar.
        legend: (red, green, blue) and what the colour means.
    """

    title: str
    src: str
    caption: str = ""
    description: str = ""
    size: tuple[int, int] | None = None
    is_pixelated: bool = False
    scale_bar: tuple[float, str] | None = None
    legend: tuple[tuple[tuple[int, int, int], str], ...] = ()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    """Return a file's content as an address that holds the content itself."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def page_script(name: str) -> tuple[Markup, Markup]:
    """Return a script of this folder to put into a page, and its source for the page's policy, which allows no other."""
    text = files("im2im_zoo.pages").joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return Markup(text), Markup(f"'sha256-{digest}'")  # noqa: S704 # our own file


def render(template: str, **values: object) -> str:
    """Return the HTML of a template in `templates/`.

    Args:
        template: file name, e.g. "report.html.j2".
        values: every name that the template uses. Text is escaped.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not given.
    """
    text = _environment().get_template(template).render(values)
    # A file name that is not UTF-8 has lone surrogates, which no file can hold.
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("im2im_zoo.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("im2im_zoo.pages").joinpath("style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704 # our own file
    return environment
