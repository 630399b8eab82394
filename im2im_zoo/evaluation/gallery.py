"""One self-contained HTML page of many small pictures in rows, with remarks above. No script, no network, no outside file."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

from im2im_zoo.evaluation.files import write_file
from im2im_zoo.evaluation.panels import Panel, render
from im2im_zoo.evaluation.plots import png_bytes

_SIDE = 192  # pixels of a picture's longer side
_SHOWN = 12  # lines of a remark before the rest is folded away
_STYLE = """
.remark { border-left: 5px solid var(--line); } .remark + .remark { margin-top: 12px; }
.remark.error { border-left-color: #c62828; } .remark.warning { border-left-color: #e09000; } .remark.good { border-left-color: #2e8b57; }
.remark ul { margin: 6px 0 0; padding-left: 20px; font-size: 0.88rem; overflow-wrap: anywhere; } .remark summary { cursor: pointer; font-size: 0.88rem; }
.word { font-weight: 650; margin-right: 8px; }
.rows { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 14px; }
.row h3 { margin: 0 0 2px; overflow-wrap: anywhere; } .row .note { margin: 0 0 8px; font-size: 0.82rem; }
.row .panels { grid-template-columns: repeat(auto-fill, minmax(120px, 1fr)); gap: 8px; }
.row.error { border-color: #c62828; } .row.warning { border-color: #e09000; }
.row figcaption { margin-top: 3px; font-size: 0.76rem; } .row .picture img { aspect-ratio: 1; object-fit: contain; }
"""


@dataclass(frozen=True)
class Remark:
    """A remark on the whole: how grave (`error`, `warning`, `good`), a word, a sentence, and what it is about."""

    grade: str
    word: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """Small pictures of one thing: a title, a note, the grade of what is wrong with it (or none)."""

    title: str
    panels: tuple[Panel, ...]
    note: str = ""
    grade: str = ""


@dataclass(frozen=True)
class Gallery:
    """What the page holds, from top to bottom."""

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
    style = files("im2im_zoo.evaluation").joinpath("report.css").read_text(encoding="utf-8") + _STYLE
    facts = "".join(
        f'<div class="card"><div class="name">{escape(name)}</div><div class="value">{escape(text)}</div></div>'
        for name, text in gallery.facts.items()
    )
    remarks = "".join(map(_remark, gallery.remarks))
    rows = "".join(map(_row, gallery.rows))
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(gallery.title)}</title>\n<style>\n{style}</style></head>\n<body><main><header>"
        f'<h1>{escape(gallery.title)}</h1><p class="summary">{escape(gallery.summary)}</p></header>'
        f'<div class="cards">{facts}</div><section><h2>Findings</h2>{remarks}</section>'
        f'<section><h2>Images</h2><div class="rows">{rows}</div></section></main></body></html>\n'
    )
    return write_file(Path(path), page.encode("utf-8"))


def _remark(remark: Remark) -> str:
    items = [f"<li>{escape(item)}</li>" for item in remark.items]
    listed = f"<ul>{''.join(items[:_SHOWN])}</ul>" if items else ""
    if len(items) > _SHOWN:
        rest = "".join(items[_SHOWN:])
        listed += f"<details><summary>{len(items) - _SHOWN} more</summary><ul>{rest}</ul></details>"
    text = "<br>".join(escape(line) for line in remark.text.splitlines())
    return (
        f'<div class="box remark {escape(remark.grade, quote=True)}"><span class="word">{escape(remark.word)}</span>{text}'
        f"{listed}</div>"
    )


def _row(row: Row) -> str:
    figures = ""
    for panel in row.panels:
        picture = render(panel, longest=_SIDE)
        data = base64.b64encode(png_bytes(picture.rgb)).decode("ascii")
        figures += (
            f'<figure><div class="picture"><img alt="{escape(panel.title, quote=True)}: {escape(picture.caption, quote=True)}" '
            f'title="{escape(picture.caption, quote=True)}" src="data:image/png;base64,{data}"></div>'
            f"<figcaption><strong>{escape(panel.title)}</strong>{escape(panel.caption)}</figcaption></figure>"
        )
    return (
        f'<div class="box row {escape(row.grade, quote=True)}"><h3>{escape(row.title)}</h3>'
        f'<p class="note">{escape(row.note)}</p><div class="panels">{figures}</div></div>'
    )
