"""A view as one HTML page, with all its pictures: sliders for planes, times and the prediction, switches for channels and labels."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.evaluation.painting import RGB, add_channels
from im2im_zoo.evaluation.panels import Rendered, ScaleBar, png_bytes, scale_bar
from im2im_zoo.pages import data_uri, page_script, render
from im2im_zoo.workflows.view.picture import (
    colour_of_layer,
    cropped,
    paint_fill,
    paint_outlines,
    thick_outlines,
)
from im2im_zoo.workflows.view.read import ImageLayer, LabelLayer, View

_QUALITY = 92  # of JPEG, without reduced colours


def view_page(view: View) -> str:
    """Return the page of a view."""
    script, script_hash = page_script("view.js")
    planes, frames = max(1, len(view.planes)), len(view.times) * max(1, len(view.planes))
    axes = [
        (name, control, places, start)
        for name, control, places, start in (
            ("z", "z", view.planes, view.first % planes),
            ("time", "time", view.times, view.first // planes),
        )
        if len(places) > 1
    ]
    return render(
        "view.html.j2",
        title=view.title,
        summary=" ".join(f"{_capitalized(note)}." for note in view.notes),
        notes=[_capitalized(f"{layer.title}: {note}") for layer in view.images for note in layer.notes],
        size=view.size,
        first=view.first,
        planes=view.planes,
        axes=axes,
        images=[_image(view, layer, f"image-{k}", frames) for k, layer in enumerate(view.images)],
        labels=[_labels(view, layer, f"labels-{k}", frames) for k, layer in enumerate(view.labels)],
        bar=_bar(view),
        script=script,
        script_hash=script_hash,
    )


@dataclass(frozen=True, slots=True)
class _Channel:
    number: int
    name: str
    colour: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Picture:
    """One channel of one frame."""

    frame: int
    channel: int
    name: str
    src: str


@dataclass(frozen=True, slots=True)
class _ImageSection:
    """An image of all frames; `channels` is empty if they cannot be switched."""

    key: str
    title: str
    name: str
    channels: tuple[_Channel, ...]
    pictures: tuple[_Picture, ...]


@dataclass(frozen=True, slots=True)
class _LabelSection:
    """A label image; the pictures of each frame in outlines and filled."""

    key: str
    title: str
    name: str
    objects: int
    colour: tuple[int, int, int] | None
    outlines: tuple[str, ...]
    fill: tuple[str, ...]


def _image(view: View, layer: ImageLayer, key: str, frames: int) -> _ImageSection:
    count = layer.values.shape[1]
    channels: tuple[_Channel, ...] = ()
    if count > 1 and not layer.own_colours:
        names = layer.names or tuple(f"channel {k}" for k in range(count))
        channels = tuple(
            _Channel(k, name, colour)
            for k, (name, colour) in enumerate(zip(names, layer.colours, strict=True))
        )
    pictures = []
    for frame in range(frames):
        values = cropped(view, layer.values[frame])
        if channels:
            pictures += [
                _Picture(frame, c.number, c.name, _jpeg_of(values, layer, slice(c.number, c.number + 1)))
                for c in channels
            ]
        else:
            pictures.append(_Picture(frame, 0, "", _jpeg_of(values, layer, slice(None))))
    return _ImageSection(key, layer.title, layer.name, channels, tuple(pictures))


def _jpeg_of(values: NDArray[np.generic], layer: ImageLayer, channels: slice) -> str:
    from PIL import Image

    rgb = add_channels(values[channels], layer.limits[channels], layer.colours[channels])
    picture = Image.fromarray(rgb)
    if np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 0], rgb[..., 2]):
        picture = picture.convert("L")
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=_QUALITY, subsampling=0)
    return data_uri(stream.getvalue(), "image/jpeg")


def _labels(view: View, layer: LabelLayer, key: str, frames: int) -> _LabelSection:
    return _LabelSection(
        key,
        layer.title,
        layer.name,
        layer.objects,
        colour_of_layer(view, layer),
        tuple(_png(thick_outlines(paint_outlines(view, layer, frame), view)) for frame in range(frames)),
        tuple(_png(paint_fill(view, layer, frame)) for frame in range(frames)),
    )


def _png(rgba: RGB) -> str:
    return data_uri(png_bytes(rgba))


def _bar(view: View) -> ScaleBar | None:
    if view.pixel_um is None:
        return None
    empty = np.zeros((*view.size, 3), np.uint8)
    return scale_bar(Rendered("", empty, "", (), view.pixel_um, 1 / view.factor))


def _capitalized(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
