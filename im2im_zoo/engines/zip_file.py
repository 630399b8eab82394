"""Open a weights file that is a zip, after checking that it is what it seems to be. Nothing of it is run.

Weights are programs, too. TorchScript can write files (`torch.save`) and map them (`torch.from_file`), ONNX can name files
elsewhere, Keras files can hold Python, TensorFlow graphs can read and write files; and any zip may unpack to more than there
is memory. The safety check of each format, in the module of its engine, finds what is known of such ways; it does not make
weights of strangers harmless: see docs/validate.md.
"""

import functools
import struct
import zipfile
from pathlib import Path

from im2im_zoo.core.errors import PackageError
from im2im_zoo.engines.base import SafetyCheck, Weights

_MAX_RATIO = 200.0
_RATIO_FROM = 64 * 1024**2
_MAX_BYTES = 32 * 1024**3


def refusal(weights: Weights, reason: str) -> PackageError:
    """Return the error for weights that would do more than compute."""
    return PackageError(f"{weights.path.name} ({weights.format}) is refused and was not loaded: {reason}")


def consent_hint() -> str:
    """Return the sentence that tells how to allow what is refused without consent."""
    return "read the file, and allow it with --allow-code (allow_code=True) if you trust it"


def safety_check(check: SafetyCheck) -> SafetyCheck:
    """Make the errors of a damaged file those of a package. A decorator for safety checks."""

    @functools.wraps(check)
    def checked(weights: Weights) -> None:
        try:
            check(weights)
        except (
            zipfile.BadZipFile,
            ValueError,
            OSError,
            EOFError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise PackageError(
                f"{weights.path}: the {weights.format} weights cannot be loaded: {error}; the file may be damaged"
            ) from error

    return checked


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a zip of which all readers see the same, and which unpacks to a size that its bytes may have.

    Raises:
        PackageError: it is not such a zip.
    """
    _check_directory(path)
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    total, packed = sum(e.file_size for e in entries), sum(max(1, e.compress_size) for e in entries)
    if total > _MAX_BYTES or (total > _RATIO_FROM and total > _MAX_RATIO * packed):
        archive.close()
        raise PackageError(f"{path.name} is refused and was not loaded: {packed} bytes unpack to {total}")
    return archive


def _check_directory(path: Path) -> None:
    """Refuse a zip whose list of files is not where it says, right before its end: zipfile looks there, torch where it says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 98))
        tail = file.read()
    end = tail.rfind(b"PK\5\6")
    if end < 0 or len(tail) - end != 22:
        raise PackageError(
            f"{path.name} is refused and was not loaded: as a zip, it does not end where it should"
        )
    directory, start = struct.unpack("<II", tail[end + 12 : end + 20])
    expected = size - 22
    if tail[max(0, end - 20) : end - 16] == b"PK\6\7":
        (where,) = struct.unpack("<Q", tail[end - 12 : end - 4])
        directory, start = struct.unpack("<QQ", tail[end - 36 : end - 20])
        expected = size - 98 if where == size - 98 else -1
    if start + directory != expected:
        raise PackageError(
            f"{path.name} is refused and was not loaded: as a zip, its list of files is not where it says"
        )
