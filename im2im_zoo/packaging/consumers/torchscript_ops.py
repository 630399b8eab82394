"""Operations of TorchScript that older libtorch lacks, found in a file without loading it.

A scripted `interpolate` holds all its modes, also those that are not used: from torch 2.13 no libtorch before it loads one.
"""

import re
import zipfile
from pathlib import Path

# The release of torch that brought an operation which torch's own layers call.
_SINCE = {"_upsample_lanczos2d_aa": (2, 13), "scaled_dot_product_attention": (2, 0)}
OLDEST = (1, 13)
_LARGEST = 16 * 1024**2  # bytes of code, of a file that may be anybody's


def needed_torch(path: Path) -> tuple[int, int]:
    """Return the oldest known release of torch that has the operations of a TorchScript file; (1, 13) at least.

    For other files it is (1, 13).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sources = [e for e in archive.infolist() if e.filename.endswith(".py") and e.file_size < _LARGEST]
            text = "\n".join(archive.read(e).decode("utf-8", errors="replace") for e in sources)
    except (OSError, zipfile.BadZipFile):
        return OLDEST
    called = set(re.findall(r"\btorch\.(\w+)\(", text))
    return max([OLDEST, *(since for name, since in _SINCE.items() if name in called)])
