"""State of the input files of a prediction, compared while it runs, so that no output mixes two images."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import xarray as xr

from im2im_zoo.images import sources_of
from im2im_zoo.images.formats.ome_zarr.contents import MARKS

State = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class InputWatch:
    """The files of images as they were at the start; of a zarr, the metadata files at its top.

    Looking costs microseconds a file, so that it is done after each tile. The chunks of a zarr are compared at the end, by
    its fingerprint.

    Attributes:
        states: device, inode, size and time of the last change, by path.
    """

    states: Mapping[str, State]

    @classmethod
    def of(cls, images: Iterable[xr.DataArray]) -> Self:
        """Return the state of the files of some images; images in memory and on the web have none."""
        paths = [Path(source) for image in images for source in sources_of(image)]
        files = [
            file for path in paths for file in (path, *(path / mark for mark in MARKS)) if file.is_file()
        ]
        # Links are followed at each look, as they are when a tile is read.
        return cls({str(file.absolute()): _state(str(file)) for file in files})

    def find_changed(self) -> str | None:
        """Return a file that was changed, replaced or removed since the start, or None."""
        for path, state in self.states.items():
            try:
                if _state(path) != state:
                    return path
            except OSError:
                return path
        return None


def _state(path: str) -> State:
    found = os.stat(path)  # noqa: PTH116 half the time of Path.stat
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
