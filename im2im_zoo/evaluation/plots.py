"""Panels side by side as one PNG, for a README or a cover. Drawn by matplotlib's object API: no global state."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.files import write_file
from im2im_zoo.evaluation.panels import RGB, Panel, Rendered, render, scale_bar


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
    data = panel_figure(panels, aspect=aspect, titles=titles, height=height)
    while max_bytes is not None and len(data) > max_bytes:
        height = int(height * 0.85)
        if height < 64:
            raise EvaluationError(
                f"{path}: a picture of {len(panels)} panels cannot be kept under {max_bytes} bytes"
            )
        data = panel_figure(panels, aspect=aspect, titles=titles, height=height)
    return write_file(Path(path), data)


def png_bytes(rgb: RGB) -> bytes:
    """RGB (height, width, 3) uint8 as PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(rgb).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


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
