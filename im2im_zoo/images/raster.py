"""Reading `.npy`, PNG and JPEG, and writing PNG. PNG and JPEG have no parts: they are decoded whole at the first read."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.lazy import MappedSource, OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata

_DTYPES = {"1": "bool", "L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
# Modes that are decoded to another one; P is a palette, whose indices are not intensities.
_DECODED = {"P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}


def read_npy(path: Path) -> tuple[Source, ImageMetadata]:
    """A `.npy` file. It states no axes; two dimensions are y, x. Pickled objects are refused.

    Raises:
        ImageError: objects, or not a number for each voxel.
    """
    # numpy's own reader checks the header and refuses objects; only the place of the voxels is kept.
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "Python objects" not in str(error):
            raise
        raise ImageError(
            f"{path}: holds Python objects, which are no image; save it as integers or floats"
        ) from error
    if not isinstance(mapped, np.memmap) or mapped.dtype.kind not in "biuf":
        raise ImageError(
            f"{path}: holds {mapped.dtype} values, which are no image; save it as integers or floats"
        )
    order = "F" if mapped.flags.f_contiguous and not mapped.flags.c_contiguous else "C"
    source = MappedSource(path, mapped.shape, mapped.dtype, mapped.offset, order)
    return source, ImageMetadata(axes=_plane_axes(mapped.ndim), axes_stated_by="its two dimensions")


def read_raster(path: Path) -> tuple[Source, ImageMetadata]:
    """A PNG or JPEG: y, x if it is grey, else y, x, channel. Resolution tags of these are for printing: ignored.

    Raises:
        ImageError: several frames, a mode that has no intensities, or too large to decode whole.
    """
    from PIL import Image

    with _decoding(path), Image.open(path) as image:
        frames, mode, (width, height) = getattr(image, "n_frames", 1), image.mode, image.size
    deep = _is_deep_png(path)
    if frames > 1:
        raise ImageError(f"{path}: is an animation of {frames} frames; save the frames as one TIFF")
    mode = _DECODED.get(mode, mode)
    names = _channels(mode)
    if names is None and mode not in _DTYPES:
        raise ImageError(f"{path}: has the pixel mode {mode!r}, which is not read; save it as grey or RGB")
    shape = (height, width) if names is None else (height, width, len(names))
    dtype = np.dtype("uint16" if deep else _DTYPES.get(mode, "uint8"))
    axes: tuple[AxisName, ...] = ("y", "x") if names is None else ("y", "x", "channel")
    source = OpenedSource(path, shape, dtype, decode_raster, path, mode, deep)
    return source, ImageMetadata(axes=axes, axes_stated_by="its format", channel_names=names)


def decode_raster(path: Path, mode: str, deep: bool) -> tuple[NDArray[Any], Callable[[], None]]:
    """The whole decoded picture, and nothing to close."""
    from PIL import Image

    if deep:
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes()), lambda: None

    with _decoding(path), Image.open(path) as image:
        decoded = np.asarray(image if image.mode == mode else image.convert(mode))
    return decoded, lambda: None


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Lets pictures pass that Pillow finds large, and turns its refusal of huge ones into our message."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            yield
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"{path}: is too large to be decoded whole, as its format needs; save it as a tiled TIFF or OME-Zarr"
            ) from error


def _is_deep_png(path: Path) -> bool:
    """Whether it is a PNG of 16 bits with several channels, of which Pillow would keep 8 bits."""
    with path.open("rb") as file:
        head = file.read(26)
    # Bytes 24 and 25 of a PNG: bit depth, and colour type (2 RGB, 4 grey with alpha, 6 RGB with alpha).
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06")


def _channels(mode: str) -> tuple[str, ...] | None:
    named = {
        "RGB": ("red", "green", "blue"),
        "RGBA": ("red", "green", "blue", "alpha"),
        "LA": ("grey", "alpha"),
    }
    return named.get(mode)


def _plane_axes(ndim: int) -> tuple[AxisName, ...] | None:
    return ("y", "x") if ndim == 2 else None


def png_mode(path: Path, image: xr.DataArray) -> tuple[str, ...]:
    """The order of axes in which a PNG takes an image: y, x, or y, x, channel.

    Raises:
        ImageError: other axes, dtypes or numbers of channels than a PNG has.
    """
    channels = image.sizes.get("channel", 0)
    planar = set(image.dims) == {"y", "x"} or (
        set(image.dims) == {"y", "x", "channel"} and channels in (3, 4)
    )
    if not planar or image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ImageError(
            f"{path}: a PNG takes y, x, or those with 3 or 4 channels, as uint8 or uint16; the image is "
            f"{', '.join(f'{d} {n}' for d, n in image.sizes.items())} {image.dtype}: write .ome.tif or .ome.zarr, or convert it"
        )
    return ("y", "x", "channel") if channels else ("y", "x")


def write_png(image: xr.DataArray, path: Path, order: tuple[str, ...]) -> None:
    """Write a whole image as PNG; bool becomes 0 and 255."""
    import imagecodecs

    voxels = np.ascontiguousarray(image.transpose(*order).values)
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8) * 255
    path.write_bytes(imagecodecs.png_encode(voxels))
