"""What is wrong, or may be, with the files of a set: pixel sizes, types and formats that differ or do not suit. Looks at no voxel."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.data.check.finding import Finding, Look, finding_of
from im2im_zoo.data.pairing.matching import Side
from im2im_zoo.images import format_of, pixel_size_um
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.recipe import Recipe

# Relative difference of pixel sizes from which objects look larger or smaller than in the other images.
_PIXEL_TOLERANCE = 0.05


def pixel_sizes(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Inputs whose pixels are of other sizes than most, or of sizes that the files do not say."""
    inputs = [(look, pixel_size_um(look.image)) for look in looks if look.side == "input"]
    known = {axis: sorted(s for _, size in inputs if (s := size.get(axis))) for axis in recipe.space}
    usual = {axis: sizes[len(sizes) // 2] for axis, sizes in known.items() if sizes}
    yield from finding_of(
        "mixed-pixel-sizes",
        "warning",
        f"most images have pixels of {_sizes_text(usual)}, and these have others, so that the same objects look larger or smaller; "
        "resample them, or correct the metadata",
        (
            (look, _sizes_text(size))
            for look, size in inputs
            if any(
                size.get(axis) and not np.isclose(size[axis], most, rtol=_PIXEL_TOLERANCE, atol=0)
                for axis, most in usual.items()
            )
        ),
    )
    lacking = [(look, [axis for axis in usual if not size.get(axis)]) for look, size in inputs]
    yield from finding_of(
        "unknown-pixel-size",
        "warning",
        "most images say the size of their pixels, and these do not; write it into the files",
        ((look, f"along {', '.join(axes)}") for look, axes in lacking if axes),
    )


def _sizes_text(sizes: Mapping[Any, float]) -> str:
    return ", ".join(f"{axis} {size:g} µm" for axis, size in sizes.items())


def pictures(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Masks and labels that were saved as pictures are: in colours, or with loss."""
    if recipe.output.task == "regression":
        return
    targets = [look for look in looks if look.side == "target"]
    yield from finding_of(
        "colour-labels",
        "warning",
        "targets are colour pictures, but masks and labels have one number a voxel; convert them, or, if one of the colours is the mask, "
        "choose it in data.target_channels",
        (
            (look, f"{look.image.sizes['channel']} channels")
            for look in targets
            if (f := _format(look)) and f.is_picture and look.image.sizes["channel"] in (3, 4)
        ),
    )
    yield from finding_of(
        "lossy-labels",
        "warning",
        "targets are JPEG files, which change the numbers at the borders of objects; save masks and labels as PNG or TIFF",
        ((look, "") for look in targets if (f := _format(look)) and f.is_lossy),
    )


def _format(look: Look) -> ImageFormat | None:
    return format_of(Path(look.source))


def types(looks: Sequence[Look], recipe: Recipe) -> Iterator[Finding]:
    """Inputs, or targets that are intensities, stored with other types than most."""
    sides: tuple[Side, ...] = ("input", "target") if recipe.output.task == "regression" else ("input",)
    for side in sides:
        images = [look for look in looks if look.side == side]
        usual = _most_common(str(look.image.dtype) for look in images)
        yield from finding_of(
            "mixed-types",
            "warning",
            f"most {side} images are {usual}, and these are not, so that their values may mean something else; convert them alike, "
            f"or scale each in {side}.preprocessing",
            ((look, str(look.image.dtype)) for look in images if str(look.image.dtype) != usual),
        )


def _most_common(values: Iterable[str]) -> str:
    counts = Counter(values)
    return max(sorted(counts), key=lambda value: counts[value], default="")
