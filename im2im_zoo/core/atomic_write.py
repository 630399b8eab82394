"""Write a file whole or not at all."""

import os
import tempfile
from pathlib import Path

from im2im_zoo.core.errors import Im2ImError


def write_atomically(path: Path, data: bytes, error_class: type[Im2ImError] = Im2ImError) -> Path:
    """Write to a temporary file beside `path`, then rename: a reader sees the old file or the new one, never a part.

    Args:
        path: an existing file is replaced.
        data: the content.
        error_class: error of the caller's room.

    Raises:
        Im2ImError: the folder does not exist or cannot be written (as `error_class`).
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise error_class(f"{path}: cannot be written ({error.strerror}); check the folder") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise error_class(
            f"{path}: cannot be written ({error.strerror}); check the free space and the permissions"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
