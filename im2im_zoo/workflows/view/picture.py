"""A view as one PNG: the images side by side, with outlines of labels, titles and a scale bar."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.evaluation.painting import RGB, add_channels, label_layer, lay_over
from im2im_zoo.evaluation.panels import ONLY_PREDICTION, ONLY_TARGET, Rendered, scale_bar
from im2im_zoo.workflows.view.read import ImageLayer, LabelLayer, View

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw as Draw
    from PIL.ImageFont import FreeTypeFont as Font

_GAP = 8  # pixels between pictures
_BACKGROUND, _INK = (32, 36, 42), (235, 238, 242)


def view_png(view: View) -> bytes:
    """Return the first frame of a view as the bytes of a PNG: the input, the prediction, and the input with the labels' outlines.

    The text of what is shown is in the file, as `Description`.
    """
    from PIL.PngImagePlugin import PngInfo

    pictures = [
        (f"{layer.title}: {layer.name}", paint_image(view, layer, view.first)) for layer in view.images
    ]
    if view.labels:
        words = [""] if len(view.labels) == 1 else ["orange, ", "blue, "]
        titles = " and ".join(
            f"{layer.title} ({word}{layer.objects} objects)"
            for word, layer in zip(words, view.labels, strict=True)
        )
        rgb = pictures[0][1]
        for layer in view.labels:
            rgb = lay_over(rgb, thick_outlines(paint_outlines(view, layer, view.first), view))
        pictures.append((titles, rgb))
    about = PngInfo()
    about.add_itxt("Description", "; ".join(view.sentences()))
    stream = BytesIO()
    _compose(view, pictures).save(stream, "PNG", optimize=True, pnginfo=about)
    return stream.getvalue()


def paint_image(view: View, layer: ImageLayer, frame: int) -> RGB:
    """Return the RGB (y, x, 3) of a frame of an image."""
    return add_channels(cropped(view, layer.values[frame]), layer.limits, layer.colours)


def paint_outlines(view: View, layer: LabelLayer, frame: int) -> RGB:
    """Return the outlines of a frame of labels as RGBA; of two label images each has a colour of its own."""
    return _coloured(view, layer, label_layer(cropped(view, layer.values[frame]), outlines=True))


def paint_fill(view: View, layer: LabelLayer, frame: int) -> RGB:
    """Return the objects of a frame of labels, filled, as RGBA."""
    return _coloured(view, layer, label_layer(cropped(view, layer.values[frame]), outlines=False))


def colour_of_layer(view: View, layer: LabelLayer) -> tuple[int, int, int] | None:
    """Return the one colour of a label image; None if each object has its own."""
    if len(view.labels) < 2:
        return None
    return ONLY_PREDICTION if layer is view.labels[0] else ONLY_TARGET


def thick_outlines(layer: RGB, view: View) -> RGB:
    """Return RGBA outlines two pixels wide where a picture is so large that one could not be seen."""
    if max(view.size) < 400:
        return layer
    thick = layer.copy()
    for target, shifted in ((thick[1:], layer[:-1]), (thick[:, 1:], layer[:, :-1])):
        empty = target[..., 3] == 0
        target[empty] = shifted[empty]
    return thick


def cropped(view: View, values: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return values within the size of a view, to which layers read at different levels of a pyramid are cut."""
    return values[..., : view.size[0], : view.size[1]]


def _coloured(view: View, layer: LabelLayer, rgba: RGB) -> RGB:
    colour = colour_of_layer(view, layer)
    if colour is not None:
        rgba[rgba[..., 3] > 0, :3] = colour
    return rgba


def _compose(view: View, pictures: list[tuple[str, RGB]]) -> "Picture":
    from PIL import Image, ImageDraw

    height, width = view.size
    across = width <= height * 2 or len(pictures) == 1
    text = max(11, min(32, width // 32))
    bar = text + 10
    columns, rows = (len(pictures), 1) if across else (1, len(pictures))
    canvas = Image.new(
        "RGB", (columns * (width + _GAP) - _GAP, rows * (height + bar + _GAP) - _GAP), _BACKGROUND
    )
    draw, font = ImageDraw.Draw(canvas), _font(text)
    for number, (title, rgb) in enumerate(pictures):
        x, y = (number * (width + _GAP), 0) if across else (0, number * (height + bar + _GAP))
        draw.text((x + 4, y + 3), _fitted(draw, font, title, width - 8), fill=_INK, font=font)
        canvas.paste(Image.fromarray(rgb), (x, y + bar))
        if view.pixel_um is not None:
            _draw_scale(draw, font, view, rgb, (x, y + bar))
    return canvas


def _font(size: int) -> "Font":
    """Return matplotlib's font, which has Greek and Cyrillic, unlike Pillow's own."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _draw_scale(draw: "Draw", font: "Font", view: View, rgb: RGB, corner: tuple[int, int]) -> None:
    """Draw the scale bar at the lower right, white with a dark border."""
    height, width = view.size
    bar = scale_bar(Rendered("", rgb, "", (), view.pixel_um, 1 / view.factor))
    length, margin, thick = round(bar.fraction * width), max(6, width // 40), max(2, height // 160)
    right, bottom = corner[0] + width - margin, corner[1] + height - margin
    draw.rectangle((right - length - 1, bottom - thick - 1, right + 1, bottom + 1), fill=(0, 0, 0))
    draw.rectangle((right - length, bottom - thick, right, bottom), fill=(255, 255, 255))
    draw.text(
        (right - length / 2, bottom - thick - 3),
        bar.text,
        fill=(255, 255, 255),
        font=font,
        anchor="mb",
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def _fitted(draw: "Draw", font: "Font", text: str, width: int) -> str:
    """Return a title on one line, cut at its end where it is too wide."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"
