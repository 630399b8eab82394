"""A local zarr store that notices chunks which are cut short. It repairs nothing.

numcodecs 0.16 decodes a Blosc chunk without looking at how long it is: of one that was cut short by a broken copy it
reads whatever lies behind in memory, and gives that as voxels.
"""

from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from im2im_zoo.core.errors import ImageError

# Where a Blosc chunk says how long it is, in bytes: after versions, flags, type size, and two other lengths.
_LENGTH = slice(12, 16)


class CheckedStore(LocalStore):
    """Reads the chunks of one Blosc-compressed array, and compares the length of each with what it says."""

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        value = await super().get(key, prototype, byte_range)
        if value is not None and byte_range is None and not is_metadata(key):
            check_length(value, str(Path(self.root) / key))
        return value


def check_length(value: Any, where: str) -> None:
    """Refuse the bytes of a Blosc chunk if they are not as many as it says.

    Raises:
        ImageError: naming `where` it is.
    """
    stated = int.from_bytes(value[_LENGTH].to_bytes(), "little")
    if stated != len(value):
        raise ImageError(
            f"{where}: this chunk is damaged or cut short: it has {len(value)} bytes and says {stated}; copy or make the image again"
        )


def is_metadata(key: str) -> bool:
    """Whether a file of a zarr holds no voxels."""
    return key.rsplit("/", 1)[-1].startswith(("zarr.json", ".z"))


def is_blosc(array: Any) -> bool:
    """Whether each chunk of a zarr array is a file of its own that Blosc has compressed last."""
    last = array.compressors[-1:]
    return array.shards is None and bool(last) and type(last[0]).__name__ in ("Blosc", "BloscCodec")
