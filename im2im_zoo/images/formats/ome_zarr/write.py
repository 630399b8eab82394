"""Writing OME-Zarr 0.4 and 0.5: level 0 by regions, the pyramid block by block as soon as it can be computed."""

import json
import math
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.atomic import remove_leftovers_in, write_json
from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.formats.ome_zarr.finished import Block, FinishedBlocks
from im2im_zoo.images.formats.ome_zarr.metadata import NGFF_NAMES, display_windows, group_attributes
from im2im_zoo.images.formats.ome_zarr.pyramid import default_chunks, halve, levels
from im2im_zoo.images.metadata import ATTRIBUTES_KEY
from im2im_zoo.images.target import NewImage, Storage, Stored, blocks, check_same

VERSIONS = ("0.4", "0.5")
ORDER: tuple[AxisName, ...] = ("time", "channel", "z", "y", "x")

# Bytes of a reduced level that are computed at a time, at least what one chunk of the level before gives; their input is up to
# eight times as much.
_PIECE = 2**20


class OmeZarrTarget:
    """Writer of an OME-Zarr, a `Target`; its axes are in the order t, c, z, y, x that the format prescribes.

    Args:
        path: for messages.
        image: what is written.
        storage: version, chunks and shards. `reduced` has numbers of `FinishedBlocks.number`, and `on_reduced` is called in
            the thread that marks.
    """

    def __init__(self, path: Path, image: NewImage, storage: Storage) -> None:
        asked_chunks = _sides(path, image, "chunks", storage.chunks)
        asked_shards = _sides(path, image, "shards", storage.shards)
        _check(path, image, storage.ome_zarr_version, asked_chunks, asked_shards)
        self._image = image
        self._version = storage.ome_zarr_version
        self.axes = image.in_order(ORDER)
        shape = tuple(image.size(axis) for axis in self.axes)
        chunks = asked_chunks or default_chunks(self.axes, shape, image.dtype.itemsize)
        self.chunks = _within(asked_shards or chunks, shape)
        self._levels = levels(self.axes, shape, image.pixel_size_um)
        self._chunks = [_within(chunks, level.shape) for level in self._levels]
        self._shards = [
            _shards(asked_shards, c, v.shape) for c, v in zip(self._chunks, self._levels, strict=True)
        ]
        self._reduced = tuple(storage.reduced)
        self._on_reduced = storage.on_reduced
        self._group: Any = None
        self._open: list[ZarrRegions] = []
        self._finished = self._blocks()

    def create(self, partial: Path) -> None:
        import zarr

        group = zarr.open_group(partial, mode="w-", zarr_format=3 if self._version == "0.5" else 2)
        for number, level in enumerate(self._levels):
            self._create_level(group, number, level.shape)
        # Until it is complete it is no image, and its attributes say so.
        group.attrs[ATTRIBUTES_KEY] = {"incomplete": True, "axes": self._names}

    def open(self, partial: Path) -> None:
        import zarr

        try:
            self._group = zarr.open_group(partial, mode="r+")
            arrays = [self._group[str(number)] for number in range(len(self._levels))]
            found = [_array_facts(array) for array in arrays]
        except (KeyError, ValueError, TypeError, FileNotFoundError) as error:
            raise ImageError(
                f"{partial}: is damaged ({type(error).__name__}: {error}); remove it to start over"
            ) from error
        check_same(partial, {"axes": _axes_of(dict(self._group.attrs))}, {"axes": self._names})
        for number, (facts, level) in enumerate(zip(found, self._levels, strict=True)):
            wanted = {
                "shape": level.shape,
                "dtype": self._image.dtype.name,
                "chunks": self._chunks[number],
                "shards": self._shards[number],
            }
            check_same(partial / str(number), facts, wanted)
        self._open = [ZarrLevel(partial / str(n)).open() for n in range(len(self._levels))]
        self._finished = self._blocks()
        for of_level, number in self._reduced:
            self._finished.mark_number(of_level, number)
        for of_level in range(1, len(self._levels)):
            self._write_blocks(of_level, self._finished.ready(of_level))

    def place(self) -> "ZarrLevel":
        return ZarrLevel(self._open[0].path)

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        self._open[0].write(key, block)

    def mark(self, key: tuple[slice, ...]) -> None:
        self._write_blocks(1, self._finished.mark_region(key))

    def stored(self, key: tuple[slice, ...]) -> Stored:
        return self._open[0].stored(key)

    def stored_reduced(self, level: int, number: int) -> Stored:
        return self._open[level].stored(self._finished.bounds_of(level, number))

    def check_in_place(self) -> None:
        for level in self._open:
            level.check_in_place()

    def finish(self) -> None:
        for number in range(1, len(self._levels)):
            for block in self._finished.unfinished(number):
                self._write_block(number, block)
                self._finished.mark(number, block)
        remove_leftovers_in(self._open[0].path.parent)
        for level in self._open:
            level.remove_leftovers()
        coarsest = self._open[-1].array
        windows = [] if self._image.labels else display_windows(coarsest, self.axes)
        self._write_attributes(group_attributes(self._image, self.axes, self._levels, windows, self._version))

    def _write_attributes(self, attributes: dict[str, Any]) -> None:
        """Write the group's attributes; zarr 3.1 does it in one step too, but a power cut may then leave an empty file."""
        root = self._open[0].path.parent
        if self._version == "0.4":
            write_json(root / ".zattrs", attributes, durable=True, indent=2)
        else:
            group = json.loads((root / "zarr.json").read_text(encoding="utf-8"))
            write_json(root / "zarr.json", {**group, "attributes": attributes}, durable=True, indent=2)

    def close(self) -> None:
        """Do nothing: no file is held open."""

    @property
    def _names(self) -> list[str]:
        return [NGFF_NAMES[a] for a in self.axes]

    def _blocks(self) -> FinishedBlocks:
        sides = [shards or chunks for shards, chunks in zip(self._shards, self._chunks, strict=True)]
        return FinishedBlocks([v.shape for v in self._levels], sides, [v.step for v in self._levels])

    def _write_blocks(self, number: int, ready: list[Block]) -> None:
        """Write blocks of a level, and those of the levels above that can be computed then."""
        for block in ready:
            self._write_block(number, block)
            self._write_blocks(number + 1, self._finished.mark(number, block))

    def _write_block(self, number: int, block: Block) -> None:
        fine, level = self._open[number - 1].array, self._levels[number]
        bounds = self._finished.bounds(number, block)
        made = np.empty([k.stop - k.start for k in bounds], self._image.dtype)
        sides = tuple(max(1, c // s) for c, s in zip(self._chunks[number - 1], level.step, strict=True))
        for piece in blocks(made.shape, sides, made.dtype.itemsize, _PIECE):
            source = tuple(
                slice((b.start + p.start) * f, min((b.start + p.stop) * f, n))
                for b, p, f, n in zip(bounds, piece, level.step, fine.shape, strict=True)
            )
            made[piece] = halve(np.asarray(fine[source]), level.step, average=not self._nearest)
        self._open[number].write(bounds, made)
        if self._on_reduced is not None:
            self._on_reduced(number, self._finished.number(number, block))

    @property
    def _nearest(self) -> bool:
        return self._image.labels or self._image.dtype.kind == "b"

    def _create_level(self, group: Any, number: int, shape: tuple[int, ...]) -> None:
        import zarr.codecs

        # Measured of images of 8 to 32 bits: 2 to 6 times faster than shuffled bytes at level 3, the files 8% larger to 40% smaller.
        # Labels are long runs, which bytes and a higher level hold better.
        bits, level = (False, 3) if self._image.labels else (True, 1)
        common = {
            "shape": shape,
            "dtype": self._image.dtype,
            "chunks": self._chunks[number],
            "fill_value": 0,
        }
        if self._version == "0.4":
            from numcodecs import Blosc

            compressor = Blosc(
                cname="zstd", clevel=level, shuffle=Blosc.BITSHUFFLE if bits else Blosc.SHUFFLE
            )
            encoding = {"name": "v2", "separator": "/"}
            group.create_array(str(number), **common, compressors=compressor, chunk_key_encoding=encoding)
            return
        codec = zarr.codecs.BloscCodec(
            cname="zstd",
            clevel=level,
            typesize=self._image.dtype.itemsize,
            shuffle="bitshuffle" if bits else "shuffle",
        )
        more = {"compressors": codec, "dimension_names": self._names, "shards": self._shards[number]}
        group.create_array(str(number), **common, **more)


@dataclass(frozen=True, slots=True)
class ZarrLevel:
    """Location of one level of an unfinished OME-Zarr."""

    path: Path

    def open(self) -> "ZarrRegions":
        """Open it for writing."""
        import zarr

        return ZarrRegions(self.path, zarr.open_array(self.path, mode="r+"))


class ZarrRegions:
    """Writer of regions of one zarr array."""

    def __init__(self, path: Path, array: Any) -> None:
        self.path = path
        self.array = array
        self._metadata = path / ("zarr.json" if array.metadata.zarr_format == 3 else ".zarray")
        self._opened = self._metadata.stat()

    def write(self, key: tuple[slice, ...], block: NDArray[Any]) -> None:
        """Write a block at a key of slices with start and stop."""
        if self.array.shards is not None:
            self._clear(key)
        self.array[key] = block

    def close(self) -> None:
        """Do nothing: no file is held open."""

    def stored(self, key: tuple[slice, ...]) -> Stored:
        """Return the files of a region; chunks whose voxels are all zero have none."""
        sides = self.array.shards or self.array.chunks
        spans = [range(k.start // side, -(-k.stop // side)) for k, side in zip(key, sides, strict=True)]
        files, size = 0, 0
        for at in product(*spans):
            try:
                size += os.stat(self.path / self.array.metadata.encode_chunk_key(at)).st_size  # noqa: PTH116 half the time of Path.stat
            except FileNotFoundError:
                continue
            files += 1
        return Stored(files, size)

    def check_in_place(self) -> None:
        """Check that the array is still the one that was opened.

        Raises:
            ImageError: it was removed or replaced.
        """
        try:
            found = self._metadata.stat()
        except OSError as error:
            raise ImageError(f"{self._metadata}: was removed while the image was written") from error
        if not os.path.samestat(found, self._opened) or found.st_mtime_ns != self._opened.st_mtime_ns:
            raise ImageError(f"{self._metadata}: was replaced while the image was written")

    def remove_leftovers(self) -> None:
        """Remove chunks that a killed process had not yet renamed."""
        for file in self.path.rglob("*.partial"):
            file.unlink(missing_ok=True)

    def _clear(self, key: tuple[slice, ...]) -> None:
        """Remove the shards that are about to be written as a whole: zarr 3.1 reads them first, and a power cut may have cut them short."""
        spans = [
            range(-(-k.start // side), -(-n // side) if k.stop == n else k.stop // side)
            for k, side, n in zip(key, self.array.shards, self.array.shape, strict=True)
        ]
        for at in product(*spans):
            (self.path / self.array.metadata.encode_chunk_key(at)).unlink(missing_ok=True)


def _sides(path: Path, image: NewImage, word: str, sides: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the sides of chunks or shards in the order of an OME-Zarr, from the image's order."""
    if sides is None:
        return None
    if len(sides) != len(image.axes) or min(sides) < 1:
        raise ImageError(
            f"{path}: {word} {sides} need one side above zero for each of {', '.join(image.axes)}"
        )
    side_of = dict(zip(image.axes, sides, strict=True))
    return tuple(side_of[axis] for axis in image.in_order(ORDER))


def _check(
    path: Path,
    image: NewImage,
    version: str,
    chunks: tuple[int, ...] | None,
    shards: tuple[int, ...] | None,
) -> None:
    if version not in VERSIONS:
        raise ImageError(f"{path}: OME-Zarr {version!r} is not written; choose one of {', '.join(VERSIONS)}")
    if not {"y", "x"} <= set(image.axes) or "index" in image.axes:
        raise ImageError(
            f"{path}: an OME-Zarr has y, x and may have time, channel, z; the image has {', '.join(image.axes)}: "
            "write .npy"
        )
    if shards is None:
        return
    if version == "0.4":
        raise ImageError(f"{path}: OME-Zarr 0.4 has no shards; write 0.5, or leave out the shards")
    if chunks is None or any(s % c for s, c in zip(shards, chunks, strict=True)):
        raise ImageError(
            f"{path}: shards {shards} must be multiples of the chunks {chunks or '(which are not given)'}"
        )


def _within(sides: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(min(side, n) for side, n in zip(sides, shape, strict=True))


def _shards(
    shards: tuple[int, ...] | None, chunks: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[int, ...] | None:
    """Return the shards of a level: no larger than it takes to hold it, in whole chunks."""
    if shards is None:
        return None
    return tuple(c * math.ceil(min(s, n) / c) for s, c, n in zip(shards, chunks, shape, strict=True))


def _array_facts(array: Any) -> dict[str, Any]:
    return {
        "shape": tuple(array.shape),
        "dtype": np.dtype(array.dtype).name,
        "chunks": tuple(array.chunks),
        "shards": None if array.shards is None else tuple(array.shards),
    }


def _axes_of(attributes: dict[str, Any]) -> Any:
    """Return the axes of an unfinished OME-Zarr, or of one that was completed and not yet moved."""
    ome = attributes.get("ome", attributes)
    if "multiscales" in ome:
        return [axis["name"] for axis in ome["multiscales"][0]["axes"]]
    return (attributes.get(ATTRIBUTES_KEY) or {}).get("axes")
