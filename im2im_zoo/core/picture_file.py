"""Decoded size of a picture or TIFF, read only from its header, so that a small file cannot fill the memory."""

import math
import warnings
from pathlib import Path

from im2im_zoo.core.errors import ImageError

# A cover has 500 KB and a sample is a crop: pictures of more pixels than 10,000 x 10,000 are something else.
MAX_PIXELS = 100_000_000
_TIFF = (".tif", ".tiff")


def read_picture_size(path: Path, *, limit: int = MAX_PIXELS) -> tuple[int, int]:
    """Read the width and height in pixels of a png, jpg, gif or TIFF file.

    Args:
        path: the file.
        limit: largest number of pixels, all frames together.

    Raises:
        ImageError: the file is not a picture, or has more pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about many pixels, which are counted here
            width, height, frames = (_measure_tiff if path.suffix.lower() in _TIFF else _measure_picture)(
                path
            )
    except Exception as error:
        # A damaged header can make its parser raise anything, and Pillow limits pixels, too.
        if type(error).__name__ == "DecompressionBombError":
            raise ImageError(
                f"{path.name} has too many pixels to be decoded; give a smaller picture"
            ) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ImageError(f"{path.name} is not an image: {reason}") from error
    if width * height * frames > limit:
        raise ImageError(
            f"{path.name} decodes to {width} x {height} x {frames} pixels, more than {limit}; give a smaller picture"
        )
    return width, height


def _measure_picture(path: Path) -> tuple[int, int, int]:
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        return width, height, int(getattr(image, "n_frames", 1))


def _measure_tiff(path: Path) -> tuple[int, int, int]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
        total = sum(math.prod(page.shape) for page in pages)
        height, width = [*pages[0].shape, 1, 1][:2]
        return int(width), int(height), math.ceil(total / max(1, width * height))
