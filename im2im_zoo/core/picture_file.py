"""How large a picture or TIFF is when it is decoded, read from its header alone, so that a small file cannot fill the memory."""

import math
import warnings
from pathlib import Path

from im2im_zoo.core.errors import ImageError

# A cover has 500 KB and a sample is a crop: pictures of more pixels than 10,000 x 10,000 are something else.
MAX_PIXELS = 100_000_000
_TIFF = (".tif", ".tiff")


def picture_size(path: Path, *, limit: int = MAX_PIXELS) -> tuple[int, int]:
    """Width and height in pixels of a png, jpg, gif or TIFF file.

    Args:
        limit: largest number of pixels, of all its frames together.

    Raises:
        ImageError: it is no picture, or has more pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of many pixels, which are counted here
            width, height, frames = (_tiff if path.suffix.lower() in _TIFF else _picture)(path)
    except Exception as error:
        # What a damaged header makes of its parser can be anything, and Pillow counts pixels, too.
        if type(error).__name__ == "DecompressionBombError":
            raise ImageError(f"{path.name} has too many pixels to be decoded: refused") from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ImageError(f"{path.name} is no image: {reason}") from error
    if width * height * frames > limit:
        raise ImageError(
            f"{path.name} decodes to {width} x {height} x {frames} pixels, more than {limit}: refused"
        )
    return width, height


def _picture(path: Path) -> tuple[int, int, int]:
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        return width, height, int(getattr(image, "n_frames", 1))


def _tiff(path: Path) -> tuple[int, int, int]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
        total = sum(math.prod(page.shape) for page in pages)
        height, width = [*pages[0].shape, 1, 1][:2]
        return int(width), int(height), math.ceil(total / max(1, width * height))
