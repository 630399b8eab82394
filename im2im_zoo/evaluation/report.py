"""Report on a model as one HTML page: metrics, pictures, curves, facts. Links are relative to the report."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.comparison import Evaluation
from im2im_zoo.evaluation.curves import Curve, curve_svg
from im2im_zoo.evaluation.files import write_file
from im2im_zoo.evaluation.instance_evaluation import POOLED
from im2im_zoo.evaluation.panels import Panel, Rendered, png_bytes, render_panel, scale_bar
from im2im_zoo.pages import Card, PageImage, data_uri, render

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
    """A metric on a card, e.g. Dice 0.95, and values to compare it with, e.g. {"Otsu": 0.82}."""

    metric: str
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
    """Content of a report, from top to bottom; empty parts are left out.

    Attributes:
        title, summary: a heading and one line.
        headlines: cards; see `headlines`.
        samples: pictures.
        curves: e.g. of the loss (`curve_from_rows`).
        evaluations: name ("model", "Otsu") -> metrics; the first is the model's, the others are compared with it.
        facts: section ("Recipe", "Data", "Versions", "Timing") -> name -> text.
        links: text -> path of a file, relative to the report.
        notes: remarks below the metrics.
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


def headlines(evaluations: Mapping[str, Evaluation], metrics: tuple[str, ...]) -> tuple[Headline, ...]:
    """Return cards of some metrics of the first evaluation, compared with the other evaluations.

    Raises:
        EvaluationError: a metric that the first evaluation lacks.
    """
    if not evaluations:
        return ()
    (_, model), *others = evaluations.items()
    missing = [name for name in metrics if name not in model.metrics]
    if missing:
        raise EvaluationError(f"no metric {', '.join(missing)}; choose from {', '.join(model.metrics)}")
    return tuple(
        Headline(name, model.metrics[name], {k: e.metrics[name] for k, e in others if name in e.metrics})
        for name in metrics
    )


def metric_label(metric: str) -> str:
    """Return a metric's name as printed: "ap@0.50" -> "AP at IoU 0.50"."""
    if metric.startswith(POOLED):
        return f"{metric_label(metric.removeprefix(POOLED))}, pooled"
    base, _, level = metric.partition("@")
    return LABELS.get(base, base) + (f" at IoU {level}" if level else "")


def format_metric(metric: str, value: float) -> str:
    """Return a metric's value as printed: counts whole, PSNR in dB, the rest with three or four digits."""
    base = metric.removeprefix(POOLED).partition("@")[0].partition("[")[0]
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
    """Return the page as text; see `write_report`."""
    charts = [(curve.title, curve_svg(curve)) for curve in report.curves]
    return render(
        "report.html.j2",
        title=report.title,
        summary=report.summary,
        cards=[_card(headline) for headline in report.headlines],
        samples=[_sample_section(sample) for sample in report.samples],
        charts=[(title, svg) for title, svg in charts if svg],
        tables=_metric_tables(report.evaluations),
        notes=[*_evaluation_notes(report.evaluations), *map(_capitalized, report.notes)],
        facts=report.facts,
        links={text: _relative(target) for text, target in report.links.items()},
    )


def page_image(picture: Rendered) -> PageImage:
    """Return a drawn panel as an image of a page, with its scale bar and legend."""
    height, width = picture.rgb.shape[:2]
    bar = scale_bar(picture)
    return PageImage(
        picture.title,
        data_uri(png_bytes(picture.rgb)),
        picture.caption,
        size=(width, height),
        is_pixelated=width < _SMALL,
        scale_bar=(bar.fraction, bar.text),
        legend=picture.legend,
    )


@dataclass(frozen=True, slots=True)
class _SampleSection:
    title: str
    note: str
    images: tuple[PageImage, ...]


@dataclass(frozen=True, slots=True)
class _MetricRow:
    """A metric of each evaluation. `definition_rows`: over how many rows the definition spans; 0: none is printed here."""

    label: str
    values: tuple[str, ...]
    definition: str
    definition_rows: int


@dataclass(frozen=True, slots=True)
class _MetricTable:
    title: str
    columns: tuple[str, ...]
    rows: tuple[_MetricRow, ...]
    has_definitions: bool


def _card(headline: Headline) -> Card:
    values = headline.baselines.values()
    is_bounded = headline.metric.partition("@")[0] in _BOUNDED and math.isfinite(headline.value)
    return Card(
        metric_label(headline.metric),
        format_metric(headline.metric, headline.value),
        tuple(f"{name} {format_metric(headline.metric, v)}" for name, v in headline.baselines.items()),
        _clip(headline.value) if is_bounded else None,
        tuple(_clip(value) for value in values if math.isfinite(value)),
    )


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value))


def _sample_section(sample: Sample) -> _SampleSection:
    images = tuple(page_image(render_panel(panel)) for panel in sample.panels)
    return _SampleSection(sample.title, sample.note, images)


def _metric_tables(evaluations: Mapping[str, Evaluation]) -> list[_MetricTable]:
    """Return a table of the means, and one for each channel if there are several."""
    if not evaluations:
        return []
    channels = next(iter(evaluations.values())).channels
    return [
        _metric_table(evaluations, "", "all channels" if channels else ""),
        *(_metric_table(evaluations, channel, channel) for channel in channels),
    ]


def _metric_table(evaluations: Mapping[str, Evaluation], channel: str, title: str) -> _MetricTable:
    """Return metrics down and evaluations across, with definitions in the table of the means only."""
    columns = {k: e.channels.get(channel, {}) if channel else e.metrics for k, e in evaluations.items()}
    definitions = next(iter(evaluations.values())).definitions
    names = list(next(iter(columns.values())))
    meanings = [definitions.get(name, "") for name in names]
    rows = []
    for k, name in enumerate(names):
        values = tuple(format_metric(name, m[name]) if name in m else "–" for m in columns.values())
        span = 0
        if not channel and (k == 0 or meanings[k] != meanings[k - 1]):
            span = next((n for n, m in enumerate(meanings[k:]) if m != meanings[k]), len(names) - k)
        rows.append(_MetricRow(metric_label(name), values, meanings[k], span))
    return _MetricTable(title, tuple(columns), tuple(rows), has_definitions=not channel)


def _evaluation_notes(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return what the metrics depend on, as one paragraph."""
    if not evaluations:
        return []
    model = next(iter(evaluations.values()))
    sentences = ["; ".join(f"{name}: {text}" for name, text in model.settings.items()) + "."]
    sentences.append(f"Mean over {model.images} images (counts: sum)." if model.images > 1 else "One image.")
    sentences += [f"{note}." for note in dict.fromkeys(n for e in evaluations.values() for n in e.notes)]
    return [" ".join(map(_capitalized, sentences))]


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _relative(target: str) -> str:
    """Return a link to a file beside the report, percent-encoded."""
    if urlsplit(target).scheme or PurePosixPath(target).is_absolute() or "\\" in target:
        raise EvaluationError(f"link {target!r}: give a path relative to the report, with forward slashes")
    return quote(target, errors="replace")
