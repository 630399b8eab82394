"""Curves of training, e.g. the loss over epochs, from rows of metrics to SVG."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from markupsafe import Markup

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.pages import Line, line_chart


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
    """Return a curve from the rows of a metrics CSV (strings or numbers; blank and non-finite cells are left out).

    Args:
        columns: column -> name of its line; default: those of train_loss_epoch (or train_loss) and val_loss that are there.
    Raises:
        EvaluationError: no such column, or a cell that is not a number.
    """
    table = [dict(row) for row in rows]
    present = list(dict.fromkeys(key for row in table for key in row))
    if columns is None:
        train = "train_loss_epoch" if "train_loss_epoch" in present else "train_loss"
        columns = {k: v for k, v in ((train, "training"), ("val_loss", "validation")) if k in present}
    missing = [key for key in (x, *columns) if key not in present]
    if missing or not columns:
        raise EvaluationError(
            f"metrics: no column {', '.join(missing) or 'of a loss'}; there are {', '.join(present) or 'none'}"
        )
    series: dict[str, tuple[tuple[float, float], ...]] = {}
    for column, name in columns.items():
        cells = ((_number(row.get(x), x), _number(row.get(column), column)) for row in table)
        series[name] = tuple((a, b) for a, b in cells if a is not None and b is not None)
    return Curve(title, x, y_label, series)


def curve_svg(curve: Curve) -> Markup:
    """Return a curve as one <svg>, with a dot at the lowest point of each line after the first; empty without points.

    Raises:
        EvaluationError: a logarithmic axis of values that are not above 0.
    """
    ys = [y for points in curve.series.values() for _, y in points]
    if not ys:
        return Markup()
    is_log = curve.log if curve.log is not None else min(ys) > 0 and max(ys) / min(ys) > 30
    if is_log and min(ys) <= 0:
        raise EvaluationError(
            f"curve {curve.title!r}: a logarithmic axis needs values above 0, not {min(ys):g}; use log=False"
        )
    lines = [_line(curve, number, name) for number, name in enumerate(curve.series)]
    return line_chart(lines, title=curve.title, x_label=curve.x_label, y_label=curve.y_label, is_log=is_log)


def _line(curve: Curve, number: int, name: str) -> Line:
    """Return a line of a curve, marked at its lowest point unless it is the first; a single point is always marked."""
    points = curve.series[name]
    if number > 0 and points:
        x, y = lowest = min(points, key=lambda point: point[1])
        return Line(f"{name}, lowest {y:.3g} at {curve.x_label} {x:g}", points, lowest)
    return Line(name, points, points[0] if len(points) == 1 else None)


def _number(cell: object, column: str) -> float | None:
    if cell is None or cell == "":
        return None
    try:
        value = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise EvaluationError(f"metrics, column {column}: {cell!r} is not a number") from None
    return value if math.isfinite(value) else None
