"""Formats of microscopes (.czi, .lif, .nd2, ...) through the optional package bioio, which has a plugin for each."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata, as_number, known, names_or_none, positive

_AXES: dict[str, AxisName] = {"T": "time", "C": "channel", "Z": "z", "Y": "y", "X": "x", "S": "channel"}
_INSTALL = 'pip install "im2im_zoo[bioio]"'


class Bioio(ImageFormat):
    """Formats of microscopes, and any other that an installed plugin of bioio reads."""

    name = "microscope's format"
    reads = (".czi", ".lif", ".nd2")
    several = True
    reads_any = True
    extra = "bioio"

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open one scene."""
        return read_with_bioio(path, number)


def read_with_bioio(path: Path, image: int | None = None) -> tuple[Source, ImageMetadata]:
    """Open one scene. Axes that bioio adds with the length 1 are left out again, except y and x.

    Args:
        path: the file.
        image: which of its scenes, counted from 0; None is the only one.

    Raises:
        ImageError: bioio or its plugin is not installed, the file is not read, or no scene is named of several.
    """
    opened = _open(path)
    scenes = list(opened.scenes)
    if image is None and len(scenes) > 1:
        listed = ", ".join(f"#{i} {name}" for i, name in enumerate(scenes[:20]))
        raise ImageError(f"{path}: holds {len(scenes)} images: {listed}; name one, as in '{path.name}#0'")
    if (image or 0) >= len(scenes):
        raise ImageError(f"{path}: has no image {image}: it has {len(scenes)}, counted from 0")
    opened.set_scene(image or 0)
    letters = "".join(opened.dims.order)
    kept = _kept(letters, opened.shape)
    shape = tuple(n for n, keep in zip(opened.shape, kept, strict=True) if keep)
    names = [_AXES.get(letter) for letter, keep in zip(letters, kept, strict=True) if keep]
    found = tuple(n for n in names if n is not None)
    axes = found if len(found) == len(shape) == len(set(found)) else None
    sizes = opened.physical_pixel_sizes
    interval: Any = getattr(opened, "time_interval", None)
    step = interval.total_seconds() if hasattr(interval, "total_seconds") else as_number(interval)
    count = shape[axes.index("channel")] if axes and "channel" in axes else 1
    # bioio invents "Channel:0:1" where the file has no name.
    names_given = [
        None if re.fullmatch(r"Channel:\d+:\d+", str(n)) else n for n in opened.channel_names or ()
    ]
    left_out = [letter for letter, keep in zip(letters, kept, strict=True) if not keep and letter in "TCZ"]
    metadata = ImageMetadata(
        axes,
        "its own metadata",
        # bioio gives micrometres.
        pixel_size_um=known(z=positive(sizes.Z), y=positive(sizes.Y), x=positive(sizes.X)),
        time_step_s=positive(step),
        channel_names=names_or_none(names_given, count),
        singletons=frozenset(_AXES[letter] for letter in left_out),
    )
    return OpenedSource(path, shape, np.dtype(opened.dtype), open_scene, path, image or 0), metadata


def open_scene(path: Path, image: int) -> tuple[Any, Callable[[], None]]:
    """Return the voxels of a scene, to be indexed by a key, and a function that does nothing, as nothing has to be closed."""
    opened = _open(path)
    opened.set_scene(image)
    kept = _kept("".join(opened.dims.order), opened.shape)
    return _Computed(opened.dask_data[tuple(slice(None) if keep else 0 for keep in kept)]), lambda: None


class _Computed:
    """A dask array whose regions come as numpy arrays, computed in this thread."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __getitem__(self, key: Any) -> Any:
        return self._array[key].compute(scheduler="synchronous")


def _kept(letters: str, shape: tuple[int, ...]) -> list[bool]:
    return [letter in "YX" or length != 1 for letter, length in zip(letters, shape, strict=True)]


def _open(path: Path) -> Any:
    try:
        from bioio import BioImage
    except ImportError as error:
        raise ImageError(
            f"{path}: files {f'with the suffix {path.suffix!r}' if path.suffix else 'without a suffix'} are read through bioio: {_INSTALL} and the plugin for it "
            f"(bioio-czi, bioio-lif, bioio-nd2, ...); or open it in Fiji, or the program of the microscope, and save it as TIFF or OME-TIFF"
        ) from error
    try:
        return BioImage(path)
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise ImageError(
            f"{path}: bioio cannot read it ({type(error).__name__}: {said}); install the plugin for "
            f"{path.suffix!r} ({_INSTALL}; bioio-bioformats reads most), or open it in Fiji and save it as TIFF"
        ) from error
