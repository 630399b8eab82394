"""Line charts as SVG text that takes its colours from the page, drawn by matplotlib. The same data gives the same text."""

import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup

# Colours drawn by matplotlib -> those of the stylesheet, which differ between light and dark pages.
_GRID, _TEXT = "#000001", "#000002"
_LINES = ("#000011", "#000012", "#000013", "#000014")
_PAGE_COLOURS = {
    _GRID: "var(--line)",
    _TEXT: "var(--soft)",
    **{colour: f"var(--accent-{number})" for number, colour in enumerate(_LINES, start=1)},
}
# Dashes tell the lines apart in grey print.
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))
_INCHES = (4.8, 2.6)  # narrow, so that text stays readable on a phone
_LONGEST_LABEL, _LONGEST_AXIS_LABEL = 52, 28  # characters that fit the drawing
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart.

    Attributes:
        label: text of the legend.
        points: finite (x, y).
        marked: a point drawn as a dot.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    marked: tuple[float, float] | None = None


def line_chart(
    lines: Sequence[Line], *, title: str, x_label: str, y_label: str, is_log: bool = False
) -> Markup:
    """Return one <svg> element with grid, axes, lines and a legend, safe to insert into HTML.

    Groups have classes instead of ids: `line-0`, `dot-0`, ...

    Args:
        lines: at least one point in all.
        title: alternative text; not drawn.
        x_label, y_label: names of the axes.
        is_log: logarithmic y; every y is then above 0.
    """
    import matplotlib as mpl

    figure = _draw(lines, x_label, y_label, is_log)
    drawn = StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "im2im_zoo"}), warnings.catch_warnings():
        # The text stays text: the browser has the glyphs that matplotlib's font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_page(drawn.getvalue(), ", ".join([title, *(line.label for line in lines)]))


def _draw(lines: Sequence[Line], x_label: str, y_label: str, is_log: bool) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    figure = Figure(figsize=_INCHES, layout="constrained")
    axes = figure.add_subplot()
    handles = [_draw_line(axes, number, line) for number, line in enumerate(lines)]
    if is_log:
        axes.set_yscale("log")
        # Whole powers of ten, so that at least two of them are labelled.
        ys = [math.log10(y) for line in lines for _, y in line.points]
        axes.set_ylim(10 ** math.floor(min(ys)), 10 ** max(math.ceil(max(ys)), math.floor(min(ys)) + 1))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    for axis, label in ((axes.xaxis, x_label), (axes.yaxis, y_label + (" (log scale)" if is_log else ""))):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_label_text(_plain(label, _LONGEST_AXIS_LABEL), color=_TEXT, size=9, parse_math=False)
    axes.tick_params(which="both", length=0, labelsize=9, labelcolor=_TEXT)
    # Without a clip path, the element needs no ids, which would have to differ between the charts of a page.
    axes.grid(axis="y", color=_GRID, clip_on=False)
    axes.set_axisbelow(True)
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(_TEXT)
    for patch in (figure.patch, axes.patch):
        patch.set_visible(False)
    # matplotlib skips a label that starts with an underscore, and reads $ as mathematics: set the text afterwards.
    legend = axes.legend(
        handles, ["."] * len(lines), loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9
    )
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set(text=_plain(line.label, _LONGEST_LABEL), parse_math=False, color=_TEXT)
    return figure


def _draw_line(axes: Any, number: int, line: Line) -> Any:
    colour, dash = _LINES[number % len(_LINES)], _DASHES[number % len(_DASHES)]
    xs, ys = [x for x, _ in line.points], [y for _, y in line.points]
    [handle] = axes.plot(
        xs, ys, color=colour, linestyle=dash, linewidth=1.8, clip_on=False, gid=f"line-{number}"
    )
    if line.marked is not None:
        x, y = line.marked
        # A line of no length with round ends: a marker would need an id.
        axes.plot(
            [x, x], [y, y], color=colour, linewidth=6, solid_capstyle="round", clip_on=False,
            gid=f"dot-{number}",
        )  # fmt: skip
    return handle


def _for_page(drawn: str, description: str) -> Markup:
    """Return matplotlib's SVG as an element of a page: without ids, namespaces, fonts and styles for the whole page."""
    root = ElementTree.fromstring(drawn)  # noqa: S314 # written by matplotlib just now
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        if "id" in element.attrib:
            element.attrib["class"] = element.attrib.pop("id")
        if style := element.attrib.get("style"):
            style = re.sub(r"font-family: [^;]*;? ?", "", style)
            element.attrib["style"] = re.sub(
                r"#[0-9a-f]{6}", lambda found: _PAGE_COLOURS.get(found[0], found[0]), style
            )
    for defs in root.findall("defs"):
        root.remove(defs)
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img"}
    label = ElementTree.Element("title")
    label.text = _plain(description)
    root.insert(0, label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 # ElementTree has escaped it


def _plain(text: str, longest: int | None = None) -> str:
    """Return a text without the characters that XML cannot hold, and without its middle if it is too long."""
    text = _NOT_XML.sub("\ufffd", text)
    if longest is None or len(text) <= longest:
        return text
    tail = longest // 2
    return f"{text[: longest - tail - 1]}…{text[-tail:]}"
