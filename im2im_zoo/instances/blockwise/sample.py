"""One sample that is grouped block by block: its maps, and the folder of what is found out on the way. Knows no method.

    ID.npy, ...        tables, each file in a folder of its kind, written under another name and renamed
    local              zarr: the objects of each block, numbered within it
    view/ID            zarr: arrays of which parts are read

Everything in it can be made again from the maps, and is the same then. It can be sent to other processes.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.images.atomic import writing_errors
from im2im_zoo.instances.blockwise.grid import BlockGrid, Region
from im2im_zoo.instances.grouping import AnyGrouping, GroupFunction

# Of arrays of which parts are read.
_CHUNK = {2: 512, 3: 64}


@dataclass(frozen=True, slots=True)
class Code:
    """The grouping's function, to be loaded in any process."""

    grouping: AnyGrouping
    root: Path
    allow_code: bool

    def load(self) -> GroupFunction:
        """The function; a second time it is the same."""
        return self.grouping.load(self.root, allow_code=self.allow_code)


@dataclass(frozen=True, slots=True)
class Sample:
    """What is grouped.

    Attributes:
        maps: lazy; some of channel and `space`, in any order.
        space: the axes of the labels, (z,) y, x.
        grid: the blocks, of the labels.
        folder: where what is found out is kept.
        code: of the grouping.
        room: bytes that the work on one block may take; `each` is what it takes for a voxel.
    """

    maps: xr.DataArray
    space: tuple[str, ...]
    grid: BlockGrid
    folder: Path
    code: Code
    room: int
    each: int

    @property
    def scale(self) -> tuple[int, ...]:
        """Voxels of the labels for one of the maps along (z,) y, x: more than 1 of a StarDist network with a coarser grid."""
        return tuple(self.code.grouping.scale.get(a, 1) for a in self.space)

    def aligned(self, region: Region) -> Region:
        """A region of the labels with what its outermost voxels of the maps reach of the image beside it."""
        return tuple(
            slice(s.start // g * g, min(n, -(-s.stop // g) * g))
            for s, g, n in zip(region, self.scale, self.grid.shape, strict=True)
        )

    def grouped(self, region: Region) -> NDArray[np.integer[Any]]:
        """The labels of a region that is `aligned`, grouped by itself."""
        labels = self.code.load()(self.read(region))
        # The last voxel of the maps may reach beyond the image.
        return labels[tuple(slice(0, n) for n in sizes(region))]

    def read(self, region: Region, channel: int | None = None) -> NDArray[np.float32]:
        """The maps (channel, (z,) y, x) of a region of the labels, or one of them."""
        spans = {
            a: slice(s.start // g, -(-s.stop // g))
            for a, s, g in zip(self.space, region, self.scale, strict=True)
        }
        key = {a: s for a, s in spans.items() if a in self.maps.dims}
        part = self.maps.isel(key)
        if channel is not None and "channel" in part.dims:
            part = part.isel(channel=[channel])
        added = [a for a in ("channel", *self.space) if a not in part.dims]
        whole = part.expand_dims(added).transpose("channel", *self.space).to_numpy()
        return np.ascontiguousarray(whole, np.float32)

    def save(self, kind: str, name: object, table: NDArray[Any], *, durable: bool = False) -> None:
        """Keep a table; a durable one is there, as it is or as it was, after a power cut as well."""
        path = self._path(kind, name)
        with writing_errors(path, table.nbytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
            with partial.open("wb") as file:
                np.save(file, table, allow_pickle=False)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            partial.replace(path)

    def load(self, kind: str, name: object) -> NDArray[Any]:
        """A table, mapped: what is not looked at is not read. It stays as it is if another takes its place."""
        # Not by np.load, which opens a file again to map it: by then it may be another.
        with self._path(kind, name).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if 0 in shape:
                return np.zeros(shape, dtype)
            order: Literal["C", "F"] = "F" if fortran else "C"
            return np.memmap(file, dtype, "r", file.tell(), shape, order)

    def has(self, kind: str, name: object) -> bool:
        """Whether there is such a table."""
        return self._path(kind, name).is_file()

    def tables(self, kind: str) -> Iterator[NDArray[Any]]:
        """All tables of a kind, by name."""
        for path in sorted((self.folder / kind).glob("*.npy")):
            yield self.load(kind, path.stem)

    def keep_local(self, number: int, labels: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
        """Keep the objects of a block.

        Args:
            labels: ((z,) y, x), 0 for the background, else the place of the object in `ids`, from 1.
            ids: each object's, the same in all blocks.
        """
        self._local()[self.grid.region(number)] = labels
        self.save("ids", number, ids)

    def local(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The objects of a block, as they were kept."""
        return np.asarray(self._local()[self.grid.region(number)]), np.array(self.load("ids", number))

    def keep_array(self, kind: str, name: object, array: NDArray[np.int32]) -> None:
        """Keep an array, to read parts of it."""
        import zarr

        path = self.folder / kind / str(name)
        chunks = tuple(min(n, _CHUNK[array.ndim]) for n in array.shape)
        with writing_errors(path, array.nbytes):
            kept = zarr.create_array(
                store=str(path), shape=array.shape, chunks=chunks, dtype=array.dtype, overwrite=True
            )
            kept[...] = array

    def array(self, kind: str, name: object, region: Region) -> NDArray[np.int32]:
        """A part of an array."""
        import zarr

        return np.asarray(zarr.open_array(str(self.folder / kind / str(name)), mode="r")[region])

    def begin(self) -> None:
        """Make what blocks are written into, unless it is there."""
        import zarr

        path = self.folder / "local"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            zarr.create_array(
                store=str(path), shape=self.grid.shape, chunks=self.grid.block, dtype="int32", fill_value=0
            )

    def check_room(self, needed: int, what: str) -> None:
        """Refuse work that does not fit the memory.

        Raises:
            PlanError: saying what takes how much.
        """
        if needed > self.room:
            raise PlanError(
                f"grouping does not go on within the memory that it has, {bytes_text(self.room)}: {what} take "
                f"{bytes_text(needed)}; give more with --memory, and start over with --restart"
            )

    def _local(self) -> Any:
        import zarr

        return zarr.open_array(str(self.folder / "local"), mode="r+")

    def _path(self, kind: str, name: object) -> Path:
        return self.folder / kind / f"{name}.npy"


def sizes(region: Region) -> tuple[int, ...]:
    """Voxels of a region along each axis."""
    return tuple(s.stop - s.start for s in region)


def arguments(function: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a grouping function is called with, beside the maps, its defaults included."""
    import inspect

    bound = inspect.signature(function).bind(None, **kwargs)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])
