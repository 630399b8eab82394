"""Curves (loss over epochs) as SVG that takes its colours from the page. No pixels, no files."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from im2im_zoo.core.errors import EvaluationError

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
    frame = _frame(points, log)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" class="curve"><title>{escape(curve.title)}: '
        f"{escape(', '.join(curve.series))}</title>",
        _svg_axes(curve, frame),
    ]
    for k, line in enumerate(curve.series.values()):
        parts.append(_svg_line([frame.place(x, y) for x, y in line], k))
    parts.append(_svg_legend(curve))
    return "".join(parts) + "</svg>"


def _number(cell: object, column: str) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise EvaluationError(f"metrics, column {column}: {cell!r} is no number") from None
    return value if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class _Frame:
    """Ranges and ticks of both axes; y in powers of ten if `log`."""

    x: tuple[float, float]
    y: tuple[float, float]
    ticks_x: tuple[float, ...]
    ticks_y: tuple[float, ...]
    log: bool

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Position of a point in the drawing, whose y grows downwards."""
        height = math.log10(y) if self.log else y
        across = (x - self.x[0]) / (self.x[1] - self.x[0] or 1)
        up = (height - self.y[0]) / (self.y[1] - self.y[0] or 1)
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def _frame(points: Sequence[tuple[float, float]], log: bool) -> _Frame:
    xs = [x for x, _ in points]
    ys = [math.log10(y) if log else y for _, y in points]
    ticks_x = _ticks(min(xs), max(xs), whole=True)
    ticks_y = _ticks(min(ys), max(ys), whole=False, log=log)
    # a single x gets an axis that goes on to the next tick
    return _Frame(
        (min(*xs, *ticks_x), max(*xs, *ticks_x)),
        (ticks_y[0], ticks_y[-1]),
        tuple(ticks_x),
        tuple(ticks_y),
        log,
    )


def _svg_axes(curve: Curve, frame: _Frame) -> str:
    """Grid, numbers and names of both axes."""
    base, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    drawn = ""
    for tick in frame.ticks_y:
        y = 10**tick if frame.log else tick
        at = frame.place(frame.x[0], y)[1]
        drawn += f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>'
        drawn += f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>'
    for x in frame.ticks_x:
        at = _LEFT + (x - frame.x[0]) / (frame.x[1] - frame.x[0] or 1) * (right - _LEFT)
        drawn += f'<text x="{at:.1f}" y="{base + 18}" text-anchor="middle">{x:g}</text>'
    return (
        f'{drawn}<line class="axis" x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}"/>'
        f'<text class="label" x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(curve.x_label)}</text>'
        f'<text class="label" transform="translate(14 {(_TOP + base) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(curve.y_label)}{' (log scale)' if frame.log else ''}</text>"
    )


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
