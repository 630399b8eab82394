"""Safe extraction of zips: only regular files below one folder, of bounded size."""

import lzma
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from im2im_zoo.core.errors import PackageError

_UNSAFE = "such a zip may be hostile and is not extracted; report this to its authors"
# Errors that zipfile and its decompressors raise for damaged files.
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
    """Limits on the unpacked content of a zip, so that a small file cannot fill the disk.

    Attributes:
        total_bytes: of all files together.
        entries: number of files.
        ratio: unpacked bytes per packed byte of one file.
        ratio_from_bytes: unpacked size from which the ratio is checked.
    """

    total_bytes: int = 32 * 1024**3
    entries: int = 10_000
    # Deflate cannot exceed about 1030; weights and images stay below 50.
    ratio: float = 200.0
    ratio_from_bytes: int = 64 * 1024**2


def extract_zip(path: Path, folder: Path, limits: ZipLimits) -> None:
    """Extract a zip into a folder: only regular files below it.

    Raises:
        PackageError: an entry that leads out of the folder, is a link, encrypted, present twice or damaged, or a zip
            that unpacks to more than the limits or the free space.
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
            f"{path}: the zip cannot be extracted: {error}; download or build it again"
        ) from error


def _check_entries(path: Path, entries: list[zipfile.ZipInfo], limits: ZipLimits, free: int) -> None:
    total = sum(e.file_size for e in entries)
    if len(entries) > limits.entries:
        raise PackageError(
            f"{path}: the zip has {len(entries)} files, more than the limit of {limits.entries}; {_UNSAFE}"
        )
    if total > limits.total_bytes:
        raise PackageError(
            f"{path}: the zip unpacks to {total} bytes, more than the limit of {limits.total_bytes}; {_UNSAFE}"
        )
    if total > free:
        raise PackageError(
            f"{path}: the zip unpacks to {total} bytes, but the temporary folder has only {free} free; free some, or set "
            "TMPDIR to another folder"
        )
    seen: set[str] = set()
    for entry in entries:
        if reason := describe_unsafe_entry(entry, limits):
            raise PackageError(f"{path}: the zip's entry {entry.filename!r} {reason}; {_UNSAFE}")
        if entry.filename.lower() in seen:
            raise PackageError(f"{path}: the zip has {entry.filename!r} twice; {_UNSAFE}")
        seen.add(entry.filename.lower())


def describe_unsafe_entry(entry: zipfile.ZipInfo, limits: ZipLimits) -> str | None:
    """Return why an entry must not be unpacked, for a message behind its name, or None: where it leads, what it is, its ratio."""
    name = entry.filename
    # Also on Linux: the same file must not be safe here and lead elsewhere on Windows.
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in name:
        return "leads out of its folder"
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a special file"
    if entry.flag_bits & 1:
        return "is encrypted: unpack it and open the folder"
    if entry.file_size > limits.ratio_from_bytes and entry.file_size > limits.ratio * max(
        entry.compress_size, 1
    ):
        return f"unpacks {entry.compress_size} bytes to {entry.file_size}"
    return None
