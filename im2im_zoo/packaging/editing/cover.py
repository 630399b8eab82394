"""A cover within bioimage.io's limits: 1:1 or 2:1, below 500 KB."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.core.errors import ImageError, PackageError
from im2im_zoo.core.picture_file import read_picture_size

if TYPE_CHECKING:
    from PIL.Image import Image

_BYTES = 500_000
_RATIOS = (1.0, 2.0)
_SUFFIXES = (".png", ".jpg", ".jpeg", ".gif")
# Each round of shrinking keeps this part of the width.
_SHRINK = 0.85


def fit_cover(path: Path) -> tuple[str, bytes]:
    """Return the suffix and the content of a cover: the file as it is if it fits, else a PNG with margins, smaller if needed.

    Args:
        path: a picture that Pillow reads.

    Raises:
        PackageError: it cannot be read as a picture.
    """
    from PIL import Image as Pillow

    try:
        width, height = read_picture_size(path)
        content = path.read_bytes()
        fits = any(abs(width / height - ratio) < 0.05 for ratio in _RATIOS) and len(content) < _BYTES
        if fits and path.suffix.lower() in _SUFFIXES:
            return path.suffix.lower(), content
        with Pillow.open(path) as picture:
            shown = _with_margins(picture.convert("RGB"))
    except (ImageError, OSError, ValueError) as error:
        raise PackageError(f"--cover {path}: {error}; give a png, jpg or gif") from error
    while len(content := _encode(shown)) >= _BYTES:
        size = max(1, int(shown.width * _SHRINK)), max(1, int(shown.height * _SHRINK))
        shown = shown.resize(size, Pillow.Resampling.LANCZOS)
    return ".png", content


def _with_margins(picture: "Image") -> "Image":
    """Return a picture on white, of the nearest allowed ratio of width to height."""
    from PIL import Image as Pillow

    ratio = min(
        _RATIOS, key=lambda r: max(picture.width / (r * picture.height), r * picture.height / picture.width)
    )
    width = max(picture.width, round(ratio * picture.height))
    height = max(picture.height, round(picture.width / ratio))
    canvas = Pillow.new("RGB", (width, height), "white")
    canvas.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return canvas


def _encode(picture: "Image") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()
