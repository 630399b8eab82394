"""PNG, JPEG and BMP. They have no parts: an image is decoded whole at the first read, and written whole."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import OpenedSource, Source
from im2im_zoo.images.metadata import ImageMetadata

if TYPE_CHECKING:
    import xarray as xr
    from PIL.Image import Image

_DTYPES = {"1": "bool", "L": "uint8", "I;16": "uint16", "I;16B": "uint16", "I": "int32", "F": "float32"}
# Modes that are decoded to another one; P is a palette, whose indices are labels and no intensities.
_DECODED = {"P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB"}
_PALETTES = ("P", "PA")
# Decoding to the numbers of a palette, which is no mode of Pillow's.
_INDICES = "indices"


class _Raster(ImageFormat):
    is_picture = True
    by_region = False

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        return read_raster(path)

    def open_labels(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        return read_raster(path, labels=True)


class Png(_Raster):
    """PNG, of 8 or 16 bits."""

    name = "PNG"
    reads = writes = (".png",)

    def writer(self, path: Path, image: "xr.DataArray") -> Callable[[Path], None]:
        """Return a function that writes the image: y, x, or with 3 channels, as uint8, uint16 or bool."""
        order = png_axes(path, image)
        return lambda partial: write_png(image, partial, order)


class Bmp(_Raster):
    """BMP, which is only read."""

    name = "BMP"
    reads = (".bmp",)


class Jpeg(_Raster):
    """JPEG, which is only read."""

    name = "JPEG"
    reads = (".jpg", ".jpeg")
    is_lossy = True


def read_raster(path: Path, *, labels: bool = False) -> tuple[Source, ImageMetadata]:
    """Open a PNG, JPEG or BMP: y, x if it is grey, else y, x, channel. Resolution tags of these are for printing: ignored.

    Args:
        path: the file.
        labels: whether a palette stands for numbers; else it is decoded to its colours, or to grey if all of them are grey.

    Raises:
        ImageError: the picture has several frames, a mode without intensities, or is too large to decode whole.
    """
    from PIL import Image

    with _decoding(path), Image.open(path) as image:
        frames, mode, (width, height) = getattr(image, "n_frames", 1), image.mode, image.size
        is_grey = mode == "P" and _has_grey_palette(image)
    deep = _is_deep_png(path)
    if frames > 1:
        raise ImageError(f"{path}: is an animation of {frames} frames; save the frames as one TIFF")
    if mode in _PALETTES and labels:
        mode = _INDICES
    elif is_grey:
        mode = "L"
    else:
        mode = _DECODED.get(mode, mode)
    names = _channels(mode)
    if names is None and mode not in (*_DTYPES, _INDICES):
        raise ImageError(f"{path}: has the pixel mode {mode!r}, which is not read; save it as grey or RGB")
    shape = (height, width) if names is None else (height, width, len(names))
    dtype = np.dtype("uint16" if deep else _DTYPES.get(mode, "uint8"))
    axes: tuple[AxisName, ...] = ("y", "x") if names is None else ("y", "x", "channel")
    # A picture is one chunk: it is decoded whole.
    source = OpenedSource(path, shape, dtype, decode_raster, path, mode, deep, chunks=shape)
    return source, ImageMetadata(axes=axes, axes_stated_by="its format", channel_names=names)


def decode_raster(path: Path, mode: str, deep: bool) -> tuple[NDArray[Any], Callable[[], None]]:
    """Return the whole decoded picture, and a function that does nothing, as there is nothing to close."""
    from PIL import Image

    if deep:
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes()), lambda: None

    with _decoding(path), Image.open(path) as image:
        if mode == _INDICES:
            return np.asarray(image.getchannel("P") if image.mode == "PA" else image), lambda: None
        decoded = np.asarray(image if image.mode == mode else image.convert(mode))
    return decoded, lambda: None


def _has_grey_palette(image: "Image") -> bool:
    """Return whether all colours of a palette are grey, so that the picture is a greyscale one; a transparent colour does not count."""
    colours = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    return len(colours) > 0 and bool((colours == colours[:, :1]).all())


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Accept pictures that Pillow warns of as large, and turn its refusal of huge ones into an ImageError."""
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
    """Return whether a file is a PNG of 16 bits with several channels, of which Pillow would keep 8 bits."""
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


def png_axes(path: Path, image: "xr.DataArray") -> tuple[str, ...]:
    """Return the order of axes in which a PNG takes an image: y, x, or y, x, channel.

    Raises:
        ImageError: a PNG has no such axes, dtype or number of channels.
    """
    channels = image.sizes.get("channel", 0)
    names = tuple(map(str, image["channel"].values)) if "channel" in image.coords else ()
    # A fourth channel is the transparency, which is no intensity when the file is read.
    is_colour = channels == 3 or (channels == 4 and names == _channels("RGBA"))
    planar = set(image.dims) == {"y", "x"} or (set(image.dims) == {"y", "x", "channel"} and is_colour)
    if not planar or image.dtype not in (np.uint8, np.uint16, np.bool_):
        raise ImageError(
            f"{path}: a PNG takes y, x, or those with 3 channels (red, green, blue), as uint8 or uint16; the image is "
            f"{', '.join(f'{d} {n}' for d, n in image.sizes.items())} {image.dtype}: write .ome.tif or .ome.zarr, or convert it"
        )
    return ("y", "x", "channel") if channels else ("y", "x")


def write_png(image: "xr.DataArray", path: Path, order: tuple[str, ...]) -> None:
    """Write a whole image as PNG; bool becomes 0 and 255."""
    import imagecodecs

    voxels = np.ascontiguousarray(image.transpose(*order).values)
    if voxels.dtype == bool:
        voxels = voxels.astype(np.uint8) * 255
    path.write_bytes(imagecodecs.png_encode(voxels))
