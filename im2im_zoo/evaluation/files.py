"""Writing the files of an evaluation, each in one step."""

from pathlib import Path

from im2im_zoo.core.atomic import write_bytes
from im2im_zoo.core.errors import EvaluationError


def write_file(path: Path, data: bytes) -> Path:
    """Write a file in one step: readers find the old file or the new one, never a part.

    Returns:
        The path.

    Raises:
        EvaluationError: the folder does not exist, or cannot be written to.
    """
    try:
        write_bytes(path, data)
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be written ({error.strerror}); check the folder, its space and your permissions"
        ) from error
    return path
