"""A folder that is there as long as its process: removed at the end, or by the next one if that was killed. Knows no images."""

import os
import platform
import re
import shutil
import tempfile
from pathlib import Path

from im2im_zoo.data.cache.cache_folder import is_abandoned, locked_file

_OWNER = "owner"


def make_temporary_folder() -> tuple[Path, int]:
    """A new folder below `TMPDIR`, and the handle of a file in it that has to be open as long as it is used.

    Those that killed processes of this machine and user have left there are removed.
    """
    # Disks that several machines see may know the locks of one machine only.
    prefix = f"im2im_zoo_{re.sub('[^A-Za-z0-9]', '', platform.node())}_"
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        if is_abandoned(left / _OWNER) and _is_own(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    return folder, locked_file(folder / _OWNER)


def _is_own(folder: Path) -> bool:
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
