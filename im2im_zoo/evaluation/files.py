"""Write a finished file whole or not at all."""

import os
import tempfile
from pathlib import Path

from im2im_zoo.core.errors import EvaluationError


def write_atomically(path: Path, data: bytes) -> Path:
    """Write to a temporary file beside `path`, then rename: a reader sees the old file or the new one, never a part.

    Raises:
        EvaluationError: the folder does not exist or cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be written ({error.strerror}); check the folder") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be written ({error.strerror}); check space and rights"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path
