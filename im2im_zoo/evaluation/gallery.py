"""Gallery of many small pictures as one HTML page, with findings above."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.evaluation.files import write_file
from im2im_zoo.evaluation.panels import Panel, png_bytes, render_panel
from im2im_zoo.pages import Card, PageImage, data_uri, render

_SIDE = 192  # pixels of a picture's longer side
_SHOWN_ITEMS = 12  # of a remark before the rest is folded away


@dataclass(frozen=True)
class Remark:
    """A finding about the images: its grade (`error`, `warning`, `good`), a word, a sentence, and the files it is about."""

    grade: str
    word: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """Small pictures that belong together: a title, a note, and the grade of their worst finding (or none)."""

    title: str
    panels: tuple[Panel, ...]
    note: str = ""
    grade: str = ""


@dataclass(frozen=True)
class Gallery:
    """Content of the page, from top to bottom."""

    title: str
    summary: str
    facts: Mapping[str, str]
    remarks: tuple[Remark, ...]
    rows: tuple[Row, ...]


def write_gallery(path: str | Path, gallery: Gallery) -> Path:
    """Write the page to one HTML file, whole or not at all; an existing file is replaced.

    Raises:
        EvaluationError: a panel that cannot be drawn, a folder that cannot be written.
    """
    page = render(
        "gallery.html.j2",
        title=gallery.title,
        summary=gallery.summary,
        cards=[Card(name, text) for name, text in gallery.facts.items()],
        remarks=gallery.remarks,
        rows=[_row_section(row) for row in gallery.rows],
        shown_items=_SHOWN_ITEMS,
    )
    return write_file(Path(path), page.encode("utf-8"))


@dataclass(frozen=True, slots=True)
class _RowSection:
    title: str
    note: str
    grade: str
    images: tuple[PageImage, ...]


def _row_section(row: Row) -> _RowSection:
    return _RowSection(row.title, row.note, row.grade, tuple(map(_thumbnail, row.panels)))


def _thumbnail(panel: Panel) -> PageImage:
    picture = render_panel(panel, longest=_SIDE)
    return PageImage(panel.title, data_uri(png_bytes(picture.rgb)), panel.caption, picture.caption)
