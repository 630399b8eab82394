"""Rules on the files of a data set: pixel sizes, types and formats; no voxel is needed."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.data.check.finding import DataFinding, ExaminedImage, make_finding
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.images import format_of, pixel_size_um
from im2im_zoo.images.colours import is_colour
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.recipe import Recipe

# Relative difference of pixel sizes above which objects look larger or smaller than in the other images.
_PIXEL_TOLERANCE = 0.05
# Half of the side of the part in which the colours of a picture are counted, and the most that are counted.
_SIDE, _MOST_COLOURS = 512, 256


def find_pixel_sizes(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find inputs whose pixel size differs from most others, or is not in the file."""
    inputs = [(entry, pixel_size_um(entry.image)) for entry in examined if entry.side == "input"]
    known = {axis: sorted(s for _, size in inputs if (s := size.get(axis))) for axis in recipe.space}
    usual = {axis: sizes[len(sizes) // 2] for axis, sizes in known.items() if sizes}
    yield from make_finding(
        "mixed-pixel-sizes",
        "warning",
        f"most images have pixels of {_sizes_text(usual)}, but these have another size, so the same objects look larger or smaller; "
        "resample them, or correct the metadata",
        (
            (entry, _sizes_text(size))
            for entry, size in inputs
            if any(
                size.get(axis) and not np.isclose(size[axis], most, rtol=_PIXEL_TOLERANCE, atol=0)
                for axis, most in usual.items()
            )
        ),
    )
    lacking = [(entry, [axis for axis in usual if not size.get(axis)]) for entry, size in inputs]
    yield from make_finding(
        "unknown-pixel-size",
        "warning",
        "most images have a pixel size, but these have none; write it into the files",
        ((entry, f"along {', '.join(axes)}") for entry, axes in lacking if axes),
    )


def _sizes_text(sizes: Mapping[Any, float]) -> str:
    return ", ".join(f"{axis} {size:g} µm" for axis, size in sizes.items())


def find_picture_formats(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find masks and labels that were saved as colour pictures, or with lossy compression."""
    if recipe.output.task == "regression":
        return
    targets = [entry for entry in examined if entry.side == "target"]
    yield from make_finding(
        "colour-labels",
        "warning",
        "targets are colour pictures, but masks and labels need one number for each voxel: save them as label images (one number for each "
        "class or object, in greyscale); a black and white mask that was saved in colours is read with data.target_channels: [grey], and "
        "one of the colours alone with data.target_channels: [red]",
        (
            (entry, f"{entry.image.sizes['channel']} channels{_colours_text(entry)}")
            for entry in targets
            if is_colour(entry.image)
            or ((f := _format(entry)) and f.is_picture and entry.image.sizes["channel"] in (3, 4))
        ),
    )
    yield from make_finding(
        "lossy-labels",
        "warning",
        "targets are JPEG files, whose compression changes the numbers at the borders of objects; save masks and labels as PNG or TIFF",
        ((entry, "") for entry in targets if (f := _format(entry)) and f.is_lossy),
    )


def find_grey_colours(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find inputs that are greyscale pictures saved in colours: red, green and blue are equal."""
    inputs = [
        entry for entry in examined if entry.side == "input" and entry.voxels and is_colour(entry.image)
    ]
    yield from make_finding(
        "grey-colours",
        "warning",
        "images are colour pictures, but red, green and blue are equal in the middle of each; read them as greyscale with "
        "data.input_channels: [grey]",
        ((entry, "") for entry in inputs if _is_grey(_read_colours(entry.image))),
    )


def _read_colours(image: xr.DataArray) -> NDArray[Any]:
    """Return the different colours in the middle of a picture, in rows of its channels."""
    side = {
        axis: slice(max(0, n // 2 - _SIDE), n // 2 + _SIDE)
        for axis, n in image.sizes.items()
        if axis in ("y", "x")
    }
    first = {axis: 0 for axis in image.dims if axis not in ("channel", "y", "x")}
    part = image.isel({**first, **side}).transpose("channel", "y", "x").to_numpy()
    return np.unique(part.reshape(len(part), -1).T, axis=0)


def _is_grey(colours: NDArray[Any]) -> bool:
    return bool((colours == colours[:, :1]).all())


def _colours_text(entry: ExaminedImage) -> str:
    """Return how many colours a picture has, for a message; "" if they are many, as in a photograph, or no voxels are to be read."""
    if entry.voxels is None:
        return ""
    colours = _read_colours(entry.image)
    if len(colours) > _MOST_COLOURS:
        return ""
    return f", {len(colours)} colours{', all of them grey' if _is_grey(colours) else ''}"


def _format(entry: ExaminedImage) -> ImageFormat | None:
    return format_of(Path(entry.source))


def find_mixed_types(examined: Sequence[ExaminedImage], recipe: Recipe) -> Iterator[DataFinding]:
    """Find inputs, or targets that are intensities, with another data type than most."""
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    for side in sides:
        images = [entry for entry in examined if entry.side == side]
        usual = _most_common(str(entry.image.dtype) for entry in images)
        yield from make_finding(
            "mixed-types",
            "warning",
            f"most {side} images are {usual}, but these are not, so their values may mean something else; convert them to one type, "
            f"or scale each image in {side}.preprocessing",
            ((entry, str(entry.image.dtype)) for entry in images if str(entry.image.dtype) != usual),
        )


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    return max(sorted(counts), key=lambda value: counts[value], default="")
