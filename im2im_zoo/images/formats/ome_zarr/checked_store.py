"""Local zarr store that refuses chunks which are cut short.

numcodecs 0.16 decodes a Blosc chunk without looking at how long it is: of one that was cut short by a broken copy it
reads whatever lies behind in memory, and returns that as voxels.
"""

from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from im2im_zoo.core.errors import ImageError

# Length of a Blosc chunk in bytes: after versions, flags, type size, and two other lengths.
_LENGTH = slice(12, 16)


class CheckedStore(LocalStore):
    """Store of one Blosc-compressed array that compares the length of each chunk with the length it states."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if value is not None and byte_range is None and not is_metadata(key):
            check_length(value, str(Path(self.root) / key))
        return value


def check_length(value: Any, where: str) -> None:
    """Refuse a Blosc chunk of another length than it states.

    Raises:
        ImageError: the lengths differ; the message names `where` the chunk is.
    """
    stated = int.from_bytes(value[_LENGTH].to_bytes(), "little")
    if stated != len(value):
        raise ImageError(
            f"{where}: this chunk is damaged or cut short: it has {len(value)} bytes and states {stated}; copy or write the image again"
        )


def is_metadata(key: str) -> bool:
    """Return whether a file of a zarr holds no voxels."""
    return key.rsplit("/", 1)[-1].startswith(("zarr.json", ".z"))


def is_blosc(array: Any) -> bool:
    """Return whether each chunk of a zarr array is a file of its own that Blosc has compressed last."""
    last = array.compressors[-1:]
    return array.shards is None and bool(last) and type(last[0]).__name__ in ("Blosc", "BloscCodec")
