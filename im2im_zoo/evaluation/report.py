"""One self-contained HTML page about a model: figures, pictures, curves, facts. No script, no network, no outside file.

All text is escaped; pictures are PNG data URIs; links lead to files beside the report only.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.comparison import Evaluation
from im2im_zoo.evaluation.curves import Curve, curve_svg
from im2im_zoo.evaluation.files import write_file
from im2im_zoo.evaluation.instance_evaluation import POOLED
from im2im_zoo.evaluation.panels import Panel, Rendered, render, scale_bar
from im2im_zoo.evaluation.plots import png_bytes

_SMALL = 256  # pictures narrower than this are enlarged with hard pixels

LABELS: Mapping[str, str] = {
    "pearson": "Pearson correlation",
    "ssim": "SSIM",
    "psnr": "PSNR",
    "mse": "MSE",
    "mae": "MAE",
    "nrmse": "NRMSE",
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "accuracy": "Accuracy",
    "mean_ap": "Mean AP",
    "ap": "AP",
    "f1": "F1 (recognition quality RQ)",
    "matched_iou": "IoU of matches (segmentation quality SQ)",
    "panoptic_quality": "Panoptic quality PQ",
    "aggregated_jaccard": "Aggregated Jaccard AJI",
    "splits": "Split objects",
    "merges": "Objects that merge others",
    "tp": "Matched objects (TP)",
    "fp": "False objects (FP)",
    "fn": "Missed objects (FN)",
    "objects_predicted": "Objects predicted",
    "objects_true": "Objects in the target",
    "foreground_dice": "Dice of foreground",
    "foreground_iou": "IoU of foreground",
}
_COUNTS = ("tp", "fp", "fn", "splits", "merges", "objects_predicted", "objects_true")
_BOUNDED = frozenset(LABELS) - {"psnr", "mse", "mae", "nrmse", *_COUNTS}


@dataclass(frozen=True)
class Headline:
    """A figure on a card, e.g. Dice 0.95, and what it is set against, e.g. {"Otsu": 0.82}."""

    figure: str
    value: float
    baselines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """Panels that belong together, shown in one row."""

    title: str
    panels: tuple[Panel, ...]
    note: str = ""


@dataclass(frozen=True)
class Report:
    """What the page holds, from top to bottom; what is empty is left out.

    Attributes:
        title, summary: a heading and one line.
        headlines: cards; see `headlines`.
        samples: pictures.
        curves: e.g. of the loss (`curve_from_rows`).
        evaluations: name ("model", "Otsu") -> figures; the first is the model's, the others are set beside it.
        facts: section ("Recipe", "Data", "Versions", "Timing") -> name -> text.
        links: text -> path of a file, relative to the report.
        notes: remarks below the figures.
    """

    title: str
    summary: str = ""
    headlines: tuple[Headline, ...] = ()
    samples: tuple[Sample, ...] = ()
    curves: tuple[Curve, ...] = ()
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def headlines(evaluations: Mapping[str, Evaluation], figures: tuple[str, ...]) -> tuple[Headline, ...]:
    """Cards of the first evaluation's `figures`, each set against the other evaluations.

    Raises:
        EvaluationError: a figure that the first evaluation lacks.
    """
    if not evaluations:
        return ()
    (_, model), *others = evaluations.items()
    lost = [name for name in figures if name not in model.figures]
    if lost:
        raise EvaluationError(f"no figure {', '.join(lost)}; there are {', '.join(model.figures)}")
    return tuple(
        Headline(name, model.figures[name], {k: e.figures[name] for k, e in others if name in e.figures})
        for name in figures
    )


def figure_label(figure: str) -> str:
    """Name of a figure for people: "ap@0.50" -> "AP at IoU 0.50"."""
    if figure.startswith(POOLED):
        return f"{figure_label(figure.removeprefix(POOLED))}, pooled"
    base, _, level = figure.partition("@")
    return LABELS.get(base, base) + (f" at IoU {level}" if level else "")


def format_figure(figure: str, value: float) -> str:
    """A figure's value for people: counts whole, PSNR in dB, the rest with three or four digits."""
    base = figure.removeprefix(POOLED).partition("@")[0].partition("[")[0]
    if math.isnan(value):
        return "undefined"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if base in _COUNTS:
        return f"{value:.0f}"
    if base == "psnr":
        return f"{value:.2f} dB"
    return f"{value:.3f}" if base in _BOUNDED else f"{value:.4g}"


def write_report(path: str | Path, report: Report) -> Path:
    """Write the page to one HTML file, whole or not at all; an existing file is replaced.

    Raises:
        EvaluationError: a panel that cannot be drawn, a link that is not relative, a folder that cannot be written.
    """
    return write_file(Path(path), report_html(report).encode("utf-8"))


def report_html(report: Report) -> str:
    """The page as a string; see `write_report`."""
    style = files("im2im_zoo.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    body = [
        f"<header><h1>{escape(report.title)}</h1>",
        f'<p class="summary">{escape(report.summary)}</p>' if report.summary else "",
        "</header>",
        _cards(report.headlines),
        _section("Pictures", "".join(_sample(s) for s in report.samples)),
        _section("Training", _curves(report.curves)),
        _section("Figures", _figures(report.evaluations, report.notes)),
        _section("Facts", _facts(report.facts, report.links)),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title>\n<style>\n{style}</style></head>\n"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>\n" if content else ""


def _cards(cards: tuple[Headline, ...]) -> str:
    return f'<div class="cards">{"".join(map(_card, cards))}</div>\n' if cards else ""


def _card(card: Headline) -> str:
    against = " · ".join(
        f"<span>{escape(name)} {format_figure(card.figure, value)}</span>"
        for name, value in card.baselines.items()
    )
    bar = ""
    if card.figure.partition("@")[0] in _BOUNDED and math.isfinite(card.value):
        marks = "".join(
            f'<b style="left:{_percent(v)}"></b>' for v in card.baselines.values() if math.isfinite(v)
        )
        bar = f'<div class="bar"><i style="width:{_percent(card.value)}"></i>{marks}</div>'
    return (
        f'<div class="card"><div class="name">{escape(figure_label(card.figure))}</div>'
        f'<div class="value">{format_figure(card.figure, card.value)}</div>{bar}'
        f'<div class="against">{against}</div></div>'
    )


def _percent(value: float) -> str:
    return f"{100 * min(1.0, max(0.0, value)):.2f}%"


def _sample(sample: Sample) -> str:
    note = f'<p class="note">{escape(sample.note)}</p>' if sample.note else ""
    figures = "".join(_figure(render(panel)) for panel in sample.panels)
    return f'<div class="box sample"><h3>{escape(sample.title)}</h3>{note}<div class="panels">{figures}</div></div>'


def _figure(picture: Rendered) -> str:
    height, width = picture.rgb.shape[:2]
    data = base64.b64encode(png_bytes(picture.rgb)).decode("ascii")
    small = ' class="small"' if width < _SMALL else ""
    bar = scale_bar(picture)
    legend = "".join(
        f'<span><i style="background:rgb{colour}"></i>{escape(word)}</span>'
        for colour, word in picture.legend
    )
    legend = f'<div class="legend">{legend}</div>' if legend else ""
    return (
        f'<figure><div class="picture"><img{small} width="{width}" height="{height}" '
        f'alt="{escape(picture.title)}: {escape(picture.caption)}" src="data:image/png;base64,{data}">'
        f'<div class="scale" style="width:{100 * bar.fraction:.3f}%">{escape(bar.text)}</div></div>'
        f"<figcaption><strong>{escape(picture.title)}</strong>{escape(picture.caption)}"
        f"{legend}</figcaption></figure>"
    )


def _curves(curves: tuple[Curve, ...]) -> str:
    drawn = [(curve, curve_svg(curve)) for curve in curves]
    boxes = "".join(f'<div class="box"><h3>{escape(c.title)}</h3>{svg}</div>' for c, svg in drawn if svg)
    return f'<div class="curves">{boxes}</div>' if boxes else ""


def _figures(evaluations: Mapping[str, Evaluation], notes: tuple[str, ...]) -> str:
    if not evaluations:
        return "".join(f'<p class="note">{escape(n)}</p>' for n in notes)
    model = next(iter(evaluations.values()))
    tables = [_metric_table(evaluations, "", "all channels" if model.channels else "")]
    tables += [_metric_table(evaluations, channel, channel) for channel in model.channels]
    said = ["; ".join(f"{name}: {text}" for name, text in model.settings.items()) + "."]
    said.append(f"Mean over {model.images} images (counts: sum)." if model.images > 1 else "One image.")
    said += [f"{note}." for note in dict.fromkeys(n for e in evaluations.values() for n in e.notes)]
    below = "".join(
        f'<p class="note">{escape(text[:1].upper() + text[1:])}</p>' for text in (" ".join(said), *notes)
    )
    return f"{''.join(tables)}{below}"


def _metric_table(evaluations: Mapping[str, Evaluation], channel: str, title: str) -> str:
    """Figures down, evaluations across, definitions last (in the first table only)."""
    columns = {k: e.channels.get(channel, {}) if channel else e.figures for k, e in evaluations.items()}
    model = next(iter(evaluations.values()))
    names = list(next(iter(columns.values())))
    meanings = [model.definitions.get(name, "") for name in names]
    rows = ""
    for k, name in enumerate(names):
        cells = "".join(
            f'<td class="number">{format_figure(name, f[name]) if name in f else "–"}</td>'
            for f in columns.values()
        )
        words = ""
        if not channel and (k == 0 or meanings[k] != meanings[k - 1]):
            alike = next((n for n, m in enumerate(meanings[k:]) if m != meanings[k]), len(names) - k)
            words = f'<td class="definition" rowspan="{alike}">{escape(meanings[k])}</td>'
        rows += f'<tr><th scope="row">{escape(figure_label(name))}</th>{cells}{words}</tr>'
    heads = "".join(f'<th scope="col" class="number">{escape(k)}</th>' for k in columns)
    last = "" if channel else '<th scope="col">definition</th>'
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    return (
        f'<div class="box sample scroll">{heading}<table><thead><tr><th scope="col">figure</th>{heads}{last}'
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _facts(facts: Mapping[str, Mapping[str, str]], links: Mapping[str, str]) -> str:
    boxes = "".join(
        f'<div class="box"><h3>{escape(section)}</h3><table><tbody>'
        + "".join(
            f'<tr><th scope="row">{escape(k)}</th><td>{escape(str(v))}</td></tr>' for k, v in rows.items()
        )
        + "</tbody></table></div>"
        for section, rows in facts.items()
    )
    if links:
        items = "".join(
            f'<tr><td><a href="{escape(_relative(target), quote=True)}">{escape(text)}</a></td></tr>'
            for text, target in links.items()
        )
        boxes += f'<div class="box"><h3>Files</h3><table><tbody>{items}</tbody></table></div>'
    return f'<div class="facts">{boxes}</div>' if boxes else ""


def _relative(target: str) -> str:
    """A link to a file beside the report, percent-encoded."""
    if urlsplit(target).scheme or PurePosixPath(target).is_absolute() or "\\" in target:
        raise EvaluationError(f"link {target!r}: give a path relative to the report, with forward slashes")
    return quote(target)
