"""Drawings: panels side by side as one PNG (README, cover), and curves as SVG that follows the page's colours."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from im2im_zoo.errors import EvaluationError
from im2im_zoo.evaluation.panels import RGB, Panel, Rendered, render, scale_bar

# Colour by CSS class, so that light and dark pages can differ; dashes tell the lines apart in grey print.
_DASHES = ("", "7 4", "2 3", "9 3 2 3")
_WIDTH, _HEIGHT = 560, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 46


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis, e.g. training and validation loss over epochs.

    Attributes:
        series: name -> (x, y) points; y may be missing for some x, and is finite.
        log: logarithmic y; None: where all y are above 0 and span more than 30-fold.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[tuple[float, float], ...]]
    log: bool | None = None


def curve_from_rows(
    rows: Iterable[Mapping[str, object]],
    columns: Mapping[str, str] | None = None,
    *,
    x: str = "epoch",
    title: str = "Loss",
    y_label: str = "loss",
) -> Curve:
    """A curve from the rows of a metrics CSV (strings or numbers; blank and non-finite cells are left out).

    Args:
        columns: column -> name of its line; default: those of train_loss_epoch (or train_loss) and val_loss that are there.
    Raises:
        EvaluationError: no such column, or a cell that is no number.
    """
    table = [dict(row) for row in rows]
    present = list(dict.fromkeys(key for row in table for key in row))
    if columns is None:
        train = "train_loss_epoch" if "train_loss_epoch" in present else "train_loss"
        columns = {k: v for k, v in ((train, "training"), ("val_loss", "validation")) if k in present}
    lost = [key for key in (x, *columns) if key not in present]
    if lost or not columns:
        raise EvaluationError(
            f"metrics: no column {', '.join(lost) or 'of a loss'}; there are {', '.join(present) or 'none'}"
        )
    series: dict[str, tuple[tuple[float, float], ...]] = {}
    for column, name in columns.items():
        cells = ((_number(row.get(x), x), _number(row.get(column), column)) for row in table)
        series[name] = tuple((a, b) for a, b in cells if a is not None and b is not None)
    return Curve(title, x, y_label, series)


def curve_svg(curve: Curve) -> str:
    """One <svg> with grid, axes, lines, a legend and a dot at the lowest point of each line after the first.

    Classes: `grid`, `axis`, `line-0` ...; the page gives them colours.
    """
    points = [p for line in curve.series.values() for p in line]
    if not points:
        return ""
    ys = [y for _, y in points]
    log = curve.log if curve.log is not None else min(ys) > 0 and max(ys) / min(ys) > 30
    if log and min(ys) <= 0:
        raise EvaluationError(
            f"curve {curve.title!r}: a logarithmic axis needs values above 0, not {min(ys):g}"
        )
    scale = math.log10 if log else float
    ticks_x = _ticks(min(x for x, _ in points), max(x for x, _ in points), whole=True)
    ticks_y = _ticks(scale(min(ys)), scale(max(ys)), whole=False, log=log)
    low_x, high_x = min(ticks_x[0], *(x for x, _ in points)), max(ticks_x[-1], *(x for x, _ in points))
    low_y, high_y = ticks_y[0], ticks_y[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x or 1)
        up = (y - low_y) / (high_y - low_y or 1)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="curve"><title>{escape(curve.title)}: '
        f"{escape(', '.join(curve.series))}</title>"
    ]
    for y in ticks_y:
        at = place(low_x, y)[1]
        text = f"{10**y:g}" if log else f"{y:g}"
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    for x in ticks_x:
        at = place(x, low_y)[0]
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    base = _HEIGHT - _BOTTOM
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>')
    parts.append(
        f'<text class="label" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"{escape(curve.x_label)}</text>"
    )
    parts.append(
        f'<text class="label" transform="translate(14 {(_TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(curve.y_label)}{' (log scale)' if log else ''}</text>"
    )
    for k, line in enumerate(curve.series.values()):
        placed = [place(x, scale(y)) for x, y in line]
        parts.append(_svg_line(placed, k))
    parts.append(_svg_legend(curve))
    return "".join(parts) + "</svg>"


def panel_figure(
    panels: Sequence[Panel],
    *,
    aspect: float | None = None,
    titles: bool = True,
    height: int = 384,
) -> bytes:
    """Panels in one row, as the bytes of a PNG.

    Args:
        aspect: width over height of the whole picture (bioimage.io covers: 2.0 or 1.0): the panels are cut at their
            borders to fill it without gaps. None: whole panels with gaps between.
        titles: write each panel's title above it, and draw a scale bar into the first.
        height: pixels of the panels' height.
    Raises:
        EvaluationError: no panels, or one that cannot be drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not panels:
        raise EvaluationError("no panels to draw: give at least one")
    pictures = [render(panel, longest=2 * height) for panel in panels]
    if aspect is not None:
        pictures = [_crop(p, aspect / len(pictures)) for p in pictures]
    ratios = [p.rgb.shape[1] / p.rgb.shape[0] for p in pictures]
    gap = 0 if aspect is not None else 10
    head = 30 if titles else 0
    total = (height * aspect) if aspect is not None else sum(ratios) * height + gap * (len(pictures) - 1)
    dpi = 100
    figure = Figure(figsize=(round(total) / dpi, (height + head) / dpi), dpi=dpi, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    at = 0.0
    for k, (picture, ratio) in enumerate(zip(pictures, ratios, strict=True)):
        axes = figure.add_axes((at / total, 0, ratio * height / total, height / (height + head)))
        axes.imshow(picture.rgb, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        if titles:
            middle = (at + ratio * height / 2) / total
            y = 1 - head / 2 / (height + head)
            figure.text(middle, y, picture.title, ha="center", va="center", fontsize=11, parse_math=False)
        if titles and k == 0:
            _draw_bar(axes, picture)
        at += ratio * height + gap
    buffer = BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def panels_png(
    panels: Sequence[Panel],
    path: str | Path,
    *,
    aspect: float | None = None,
    titles: bool = True,
    height: int = 384,
    max_bytes: int | None = None,
) -> Path:
    """Write `panel_figure` to a file, made smaller until it keeps to `max_bytes` (bioimage.io covers: 500 000).

    Raises:
        EvaluationError: what `panel_figure` raises; `max_bytes` that cannot be kept.
    """
    from im2im_zoo.evaluation.files import write_atomically

    data = panel_figure(panels, aspect=aspect, titles=titles, height=height)
    while max_bytes is not None and len(data) > max_bytes:
        height = int(height * 0.85)
        if height < 64:
            raise EvaluationError(
                f"{path}: a picture of {len(panels)} panels cannot be kept under {max_bytes} bytes"
            )
        data = panel_figure(panels, aspect=aspect, titles=titles, height=height)
    return write_atomically(Path(path), data)


def png_bytes(rgb: RGB) -> bytes:
    """RGB (height, width, 3) uint8 as PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _number(cell: object, column: str) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise EvaluationError(f"metrics, column {column}: {cell!r} is no number") from None
    return value if math.isfinite(value) else None


def _ticks(low: float, high: float, *, whole: bool, log: bool = False) -> list[float]:
    """About five round values; those of y enclose the range, those of x (whole numbers) lie in it."""
    from matplotlib.ticker import MaxNLocator

    if log:
        first, last = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        return [float(v) for v in range(first, last + 1)]
    if low == high:
        low, high = (low, high + 1) if whole else (low - abs(low) * 0.1 - 1e-9, high + abs(high) * 0.1 + 1e-9)
    found = [float(v) for v in MaxNLocator(nbins=8 if whole else 5, integer=whole).tick_values(low, high)]
    return [v for v in found if low <= v <= high] if whole else found


def _svg_line(placed: list[tuple[float, float]], k: int) -> str:
    """The line, a dot for a single point, and a dot at the lowest point of every line but the first."""
    dash = f' stroke-dasharray="{_DASHES[k % len(_DASHES)]}"' if _DASHES[k % len(_DASHES)] else ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
    drawn = f'<polyline class="line line-{k}" points="{path}"{dash}/>' if len(placed) > 1 else ""
    if placed and (k > 0 or len(placed) == 1):
        x, y = max(placed, key=lambda p: p[1])  # y grows downwards
        drawn += f'<circle class="dot-{k}" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    return drawn


def _svg_legend(curve: Curve) -> str:
    """A short piece of each line and its name, with the lowest value where a dot marks it."""
    drawn = ""
    y = _TOP + 8
    for k, (name, line) in enumerate(curve.series.items()):
        if k > 0 and line:
            x, low = min(line, key=lambda p: p[1])
            name = f"{name}, lowest {low:.3g} at {curve.x_label} {x:g}"
        dash = f' stroke-dasharray="{_DASHES[k % len(_DASHES)]}"' if _DASHES[k % len(_DASHES)] else ""
        right = _WIDTH - _RIGHT
        drawn += (
            f'<line class="line line-{k}" x1="{right - 34}" x2="{right}" y1="{y - 4}" y2="{y - 4}"{dash}/>'
        )
        drawn += f'<text x="{right - 42}" y="{y}" text-anchor="end">{escape(name)}</text>'
        y += 18
    return drawn


def _crop(picture: Rendered, aspect: float) -> Rendered:
    """The middle of a picture, cut to width / height = aspect."""
    height, width = picture.rgb.shape[:2]
    new_width, new_height = min(width, round(height * aspect)), min(height, round(width / aspect))
    top, left = (height - new_height) // 2, (width - new_width) // 2
    rgb = picture.rgb[top : top + max(1, new_height), left : left + max(1, new_width)]
    return Rendered(picture.title, rgb, picture.caption, picture.legend, picture.pixel_um, picture.scale)


def _draw_bar(axes: Any, picture: Rendered) -> None:
    from matplotlib.patheffects import withStroke

    bar = scale_bar(picture)
    halo = [withStroke(linewidth=3, foreground="black")]
    right, bottom = 0.96, 0.05
    axes.plot(
        [right - bar.fraction, right], [bottom, bottom], transform=axes.transAxes, color="white", lw=3,
        solid_capstyle="butt", path_effects=[withStroke(linewidth=5, foreground="black")],
    )  # fmt: skip
    axes.text(
        right - bar.fraction / 2, bottom + 0.02, bar.text, transform=axes.transAxes, color="white", ha="center",
        va="bottom", fontsize=9, path_effects=halo, parse_math=False,
    )  # fmt: skip
