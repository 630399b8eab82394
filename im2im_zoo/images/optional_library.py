"""Import of a library that only some file formats need."""

import importlib
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import ImageError


def import_reader(module: str, extra: str, path: Path, kind: str) -> Any:
    """Return a library that reads a file.

    Args:
        module: its name.
        extra: the extra of im2im_zoo that installs it.
        path: the file, for the message.
        kind: of the file: "HDF5".

    Raises:
        ImageError: it is not installed; the message says how to install it, and what to do instead.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImageError(
            f'{path}: reading {kind} needs {module}, which is not installed: pip install "im2im_zoo[{extra}]"; or open it in Fiji and '
            "save it as TIFF"
        ) from error
