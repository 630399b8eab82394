"""OME-Zarr within a zip (`.ozx`, `.ome.zarr.zip`): places in it, and a store that refuses hostile or damaged entries. Unpacks nothing."""

import functools
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from zarr.storage import ZipStore

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.unzip import ZipLimits, describe_unsafe_entry
from im2im_zoo.images.address import Address
from im2im_zoo.images.formats.ome_zarr.checked_store import check_length, is_metadata

ZIP_SUFFIXES = (".ozx", ".ome.zarr.zip", ".zarr.zip")
# Metadata of a zarr have a few kB; what a plate lists of its wells may have some MB.
_LARGEST_METADATA = 64 * 2**20
_MARKS = ("zarr.json", ".zgroup", ".zarray")


class ZipPlace(Address):
    """Place in a zipped zarr: the path of the zip, and the way within it, joined as in a path."""

    __slots__ = ()

    @property
    def archive(self) -> Path | None:
        """The zip; None for a folder above it."""
        places = (Path(str(place)) for place in reversed((self, *self.parents)))
        return next((p for p in places if p.name.lower().endswith(ZIP_SUFFIXES) and p.is_file()), None)

    @property
    def inner(self) -> str:
        """The way from the zip, "" at its top."""
        archive = self.archive
        way = "" if archive is None else self.relative_to(archive.as_posix()).as_posix()
        return "" if way == "." else way


class CheckedZipStore(ZipStore):
    """Read-only files of a zipped zarr, each checked before it is unpacked in memory.

    Attributes:
        checks_blosc: whether its chunks are compressed by Blosc last, so that those cut short are found.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, mode="r")
        self.checks_blosc = False
        try:
            self._sync_open()
        except (zipfile.BadZipFile, EOFError, ValueError) as error:
            raise ImageError(
                f"{path}: the zip cannot be read ({error}); it may be damaged or cut short: copy or export it again"
            ) from error

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """The names of all files in the zip."""
        return tuple(name for name in self._zf.namelist() if not name.endswith("/"))

    def top(self) -> str:
        """Return the folder that holds the zarr: "" at the top of the zip, or the only folder that a program zipped as a whole."""
        names = set(self.names)
        folders = {PurePosixPath(n).parts[0] for n in names if "/" in n} - {"__MACOSX"}
        if names.intersection(_MARKS) or len(folders) != 1:
            return ""
        folder = folders.pop()
        return folder if any(f"{folder}/{mark}" in names for mark in _MARKS) else ""

    def close(self) -> None:
        """Close the zip, if it is open."""
        if self._is_open:
            super().close()

    def _get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        try:
            entry = self._zf.getinfo(key)
        except KeyError:
            return None
        where = f"{self.path}: its entry {key!r}"
        if is_metadata(key) and entry.file_size > _LARGEST_METADATA:
            raise ImageError(
                f"{where} has {entry.file_size} bytes, too many for metadata; get the image from its source again"
            )
        if reason := describe_unsafe_entry(entry, ZipLimits()):
            raise ImageError(f"{where} {reason}; get the image from its source again")
        try:
            value = super()._get(key, prototype, byte_range)
        except (
            zipfile.BadZipFile,
            EOFError,
            NotImplementedError,
            RuntimeError,
            ValueError,
            OSError,
        ) as error:
            raise ImageError(f"{where} is damaged ({error}); copy or export the image again") from error
        if self.checks_blosc and byte_range is None and value is not None and not is_metadata(key):
            check_length(value, f"{self.path}/{key}")
        return value


def chunk_keys(store: CheckedZipStore, inner: str) -> Iterator[Sequence[str]]:
    """Yield the parts of each file's name below an array: 0.1.2 or 0/1/2, since zarr 3 with a c in front, which is left out."""
    prefix = f"{inner}/" if inner else ""
    for name in store.names:
        if name.startswith(prefix):
            yield [part for part in name[len(prefix) :].replace(".", "/").split("/") if part != "c"]
