"""Safe reading of `.npy` files: no pickled objects, and no more memory than the file has bytes."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.errors import PackageError

# Test tensors are crops; a larger file is something else.
MAX_BYTES = 4 * 1024**3


def read_npy(path: Path, *, limit: int = MAX_BYTES) -> NDArray[Any]:
    """Read a `.npy` file into memory, in C order. Arguments and errors are those of `map_npy`."""
    return np.array(map_npy(path, limit=limit), order="C", subok=False)


def map_npy(path: Path, *, limit: int = MAX_BYTES) -> NDArray[Any]:
    """Memory-map a `.npy` file; only its header is read.

    Args:
        path: the file.
        limit: largest size of the file in bytes.

    Raises:
        PackageError: the file is larger, holds Python objects, has no valid header, or is shorter than its header states.
    """
    size = path.stat().st_size
    if size > limit:
        raise PackageError(f"{path.name} has {size} bytes, more than the limit of {limit}: crop the tensor")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # about sizes that overflow, which are refused
            # Mapping the file checks its length before anything is allocated, and refuses Python objects.
            mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
            return mapped
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise PackageError(
            f"{path.name} is not a plain .npy array: {reason}; write it with numpy.save, as numbers"
        ) from error
