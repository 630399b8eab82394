"""A sample that is segmented in blocks: its maps, and a folder of intermediate results.

    KIND/NAME.npy      tables, written atomically
    local              zarr: the objects of each block, numbered within the block
    view/NAME          zarr: arrays that are read in parts

Intermediate results are deterministic and can be computed again from the maps. A sample is picklable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.atomic import atomic_file
from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.images.atomic import writing_errors
from im2im_zoo.instances.blockwise.grid import BlockGrid, Region
from im2im_zoo.instances.grouping import AnyGrouping, GroupFunction

# Sides of the chunks of arrays that are read in parts, by number of axes.
_CHUNK = {2: 512, 3: 64}
_LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Code:
    """The source of a segmentation function, which can be loaded in any process."""

    grouping: AnyGrouping
    root: Path
    allow_code: bool

    def load(self) -> GroupFunction:
        """Load the function; repeated calls are deterministic."""
        return self.grouping.load(self.root, allow_code=self.allow_code)


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample that is segmented in blocks.

    Attributes:
        maps: lazy, with the axes channel and `space` or some of them, in any order.
        space: axes of the labels, (z,) y, x.
        grid: blocks of the labels.
        folder: for intermediate results.
        code: the segmentation function.
        room: bytes that the work on one block may use.
        each: bytes per voxel of that work.
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
        """Voxels of the labels per voxel of the maps along (z,) y, x; above 1 for StarDist networks with a coarser grid."""
        return tuple(self.code.grouping.scale.get(a, 1) for a in self.space)

    def align(self, region: Region) -> Region:
        """Extend a region of the labels to whole voxels of the maps, within the image."""
        return tuple(
            slice(s.start // g * g, min(n, -(-s.stop // g) * g))
            for s, g, n in zip(region, self.scale, self.grid.shape, strict=True)
        )

    def segment(self, region: Region) -> NDArray[np.integer[Any]]:
        """Segment an aligned region (see `align`) by itself and return its labels."""
        labels = self.code.load()(self.read(region))
        # The last voxel of the maps may extend beyond the image.
        return labels[tuple(slice(0, n) for n in sizes(region))]

    def read(self, region: Region, channel: int | None = None) -> NDArray[np.float32]:
        """Read the maps (channel, (z,) y, x) of a region of the labels, or only one channel."""
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
        """Write a table atomically; if `durable`, also in case of a power cut."""
        path = self._path(kind, name)
        with writing_errors(path, table.nbytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path, durable=durable) as file:
                np.save(file, table, allow_pickle=False)

    def load(self, kind: str, name: object) -> NDArray[Any]:
        """Load a table as a memory map, which does not change if the file is replaced."""
        # np.load opens the file twice to map it, and another process may replace it in between.
        with self._path(kind, name).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            if 0 in shape:
                return np.zeros(shape, dtype)
            order: Literal["C", "F"] = "F" if fortran else "C"
            return np.memmap(file, dtype, "r", file.tell(), shape, order)

    def has(self, kind: str, name: object) -> bool:
        """Return whether a table exists."""
        return self._path(kind, name).is_file()

    def tables(self, kind: str) -> Iterator[NDArray[Any]]:
        """Yield all tables of a kind, sorted by name."""
        for path in sorted((self.folder / kind).glob("*.npy")):
            yield self.load(kind, path.stem)

    def keep_local(self, number: int, labels: NDArray[np.int32], ids: NDArray[np.int64]) -> None:
        """Save the objects of a block.

        Args:
            number: of the block.
            labels: ((z,) y, x), 0 for background, else the index of the object in `ids`, plus one.
            ids: of the objects, unique in the sample.
        """
        self._array(_LOCAL)[self.grid.region(number)] = labels
        self.save("ids", number, ids)

    def local(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Load the labels and ids of a block, as saved by `keep_local`."""
        return self.read_part(_LOCAL, self.grid.region(number)), np.array(self.load("ids", number))

    def keep_array(self, kind: str, name: object, array: NDArray[np.int32]) -> None:
        """Save an array that is read in parts."""
        import zarr

        path = self.folder / kind / str(name)
        chunks = tuple(min(n, _CHUNK[array.ndim]) for n in array.shape)
        with writing_errors(path, array.nbytes):
            kept = zarr.create_array(
                store=str(path), shape=array.shape, chunks=chunks, dtype=array.dtype, overwrite=True
            )
            kept[...] = array

    def array(self, kind: str, name: object, region: Region) -> NDArray[np.int32]:
        """Load a region of an array."""
        import zarr

        return np.asarray(zarr.open_array(str(self.folder / kind / str(name)), mode="r")[region])

    def begin(self) -> None:
        """Create the array for the objects of blocks, unless it exists."""
        self.begin_array(_LOCAL, "int32")

    def begin_array(self, kind: str, dtype: str) -> None:
        """Create an array of the sample's shape that is written block by block, unless it exists."""
        import zarr

        path = self.folder / kind
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            zarr.create_array(
                store=str(path), shape=self.grid.shape, chunks=self.grid.block, dtype=dtype, fill_value=0
            )

    def write_part(self, kind: str, region: Region, values: NDArray[Any]) -> None:
        """Write a block of an array of `begin_array`."""
        with writing_errors(self.folder / kind, values.nbytes):
            self._array(kind)[region] = values

    def read_part(self, kind: str, region: Region) -> NDArray[Any]:
        """Load any region of an array of `begin_array`."""
        return np.asarray(self._array(kind)[region])

    def check_room(self, needed: int, what: str) -> None:
        """Check that work fits the memory.

        Args:
            needed: bytes.
            what: name of the data for the message, in the plural.

        Raises:
            PlanError: the memory is not enough.
        """
        if needed > self.room:
            raise PlanError(
                f"{bytes_text(self.room)} of memory is not enough for instance segmentation: {what} need "
                f"{bytes_text(needed)}; use more --memory, and start over with --restart"
            )

    def _array(self, kind: str) -> Any:
        import zarr

        return zarr.open_array(str(self.folder / kind), mode="r+")

    def _path(self, kind: str, name: object) -> Path:
        return self.folder / kind / f"{name}.npy"


def sizes(region: Region) -> tuple[int, ...]:
    """Return the voxels of a region along each axis."""
    return tuple(s.stop - s.start for s in region)


def arguments(function: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return all arguments of a segmentation function except the maps, including defaults."""
    import inspect

    bound = inspect.signature(function).bind(None, **kwargs)
    bound.apply_defaults()
    return dict(list(bound.arguments.items())[1:])
