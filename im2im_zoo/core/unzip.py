"""Extract a zip that may be hostile: regular files below one folder, of a bounded size, and nothing else."""

import lzma
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from im2im_zoo.core.errors import PackageError

# What zipfile and its decompressors raise of damaged files.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class ZipLimits:
    """What a zip may unpack to, so that a small file cannot fill the disk."""

    total_bytes: int = 32 * 1024**3
    entries: int = 10_000
    # Deflate cannot exceed about 1030; weights and images stay below 50. Small entries do not matter.
    ratio: float = 200.0
    ratio_from_bytes: int = 64 * 1024**2


def extract_zip(path: Path, folder: Path, limits: ZipLimits) -> None:
    """Extract a zip into a folder: regular files below it, nothing else.

    Raises:
        PackageError: an entry that leads out of the folder, is a link, encrypted, doubled or damaged, or a zip
            that unpacks to more than the limits.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir()]
            _check_entries(path, entries, limits, shutil.disk_usage(folder).free)
            for entry in entries:
                target = folder / PurePosixPath(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                # zipfile reads no more than the declared size, which was checked.
                with archive.open(entry) as reader, target.open("xb") as writer:
                    shutil.copyfileobj(reader, writer, 1024**2)
    except _DAMAGED as error:
        raise PackageError(
            f"{path}: the zip cannot be extracted: {error}; download or build it anew"
        ) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], limits: ZipLimits, free: int) -> None:
    total = sum(e.file_size for e in entries)
    if len(entries) > limits.entries:
        raise PackageError(f"{path}: the zip has {len(entries)} files, more than {limits.entries}: refused")
    if total > limits.total_bytes:
        raise PackageError(
            f"{path}: the zip unpacks to {total} bytes, more than {limits.total_bytes}: refused"
        )
    if total > free:
        raise PackageError(
            f"{path}: the zip unpacks to {total} bytes and the temporary folder has {free} free"
        )
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        # Also on Linux: the same file must not be safe here and lead elsewhere on Windows.
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in name:
            raise PackageError(
                f"{path}: the zip has an entry that leads out of its folder, {name!r}: refused"
            )
        mode = entry.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise PackageError(f"{path}: the zip's entry {name!r} is a link or a special file: refused")
        if entry.flag_bits & 1:
            raise PackageError(
                f"{path}: the zip's entry {name!r} is encrypted; unpack it and open the folder"
            )
        if name.lower() in seen:
            raise PackageError(f"{path}: the zip has {name!r} twice: refused")
        seen.add(name.lower())
        if entry.file_size > limits.ratio_from_bytes and entry.file_size > limits.ratio * max(
            entry.compress_size, 1
        ):
            raise PackageError(
                f"{path}: the zip's entry {name!r} unpacks {entry.compress_size} bytes to {entry.file_size}: refused"
            )
