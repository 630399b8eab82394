"""The last step of a package with grouping: its maps become labels. What that makes, what memory it takes, and doing it.

Each position of the axes that are looped over (a time point) is grouped apart, and its labels count from 1. One is in memory
as a whole if that fits; else it is grouped in blocks (`blockwise`). Where the maps come from and the labels go is the
caller's matter.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_zoo.core.axes import space_axes
from im2im_zoo.core.errors import PlanError
from im2im_zoo.instances.grouping import INSTANCES, AnyGrouping
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout

if TYPE_CHECKING:
    from im2im_zoo.package import Package

_DTYPE = "uint32"
# In blocks there are ids of 8 bytes beside the copies of maps and labels.
_IDS_COPIES = 6
# Sides of the chunks of labels that are grouped in blocks, the first with which a block fits; and what a block has at most.
# Bytes more for each voxel of a method that needs them, along each axis.
_MORE = {"watershed": 100}
_CHUNKS = {2: (1024, 512, 256), 3: (128, 64, 32)}
_MOST_VOXELS = 2**26


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What grouping makes of a prediction's only output.

    Attributes:
        grouping: how.
        space: the axes of one call's labels.
        axes, shape, dtype: of the label image: those of the output's image, without channels.
        sizes: of one call's labels, by `space`.
        each: bytes of memory that a voxel of the labels takes at most.
        bytes: of the memory that a call takes at most, or the work on one block.
        method: the name of today's method that gives the same as the grouping's file, if it is one of ours.
        exact: whether its labels are those of the whole image whatever the blocks.
        block: sides of the blocks, or None if the whole is grouped at once; `chunk` of the label image then.
    """

    grouping: AnyGrouping
    space: tuple[str, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    sizes: tuple[int, ...]
    each: int
    bytes: int
    method: str | None
    exact: bool
    block: tuple[int, ...] | None = None
    chunk: int = 0

    @classmethod
    def of(cls, package: "Package", layout: Layout, dtype: str | None = None) -> "GroupPlan | None":
        """That of a package, or None if it has no grouping.

        Args:
            dtype: of the label image (default: uint32).

        Raises:
            PlanError: a dtype that holds no labels, or maps whose size depends on the data.
        """
        from im2im_zoo.instances.blockwise.run import is_exact

        if package.grouping is None:
            return None
        (maps,) = layout.outputs
        if maps.image_shape is None:
            raise PlanError(
                f"{package.name}: the size of its output {maps.id} depends on the data, so it cannot be grouped; stop at it "
                "with --no-grouping"
            )
        # A channel axis that the tensor lacks is one of the image's, which is looped over.
        shape = {
            a: n
            for a, n in zip(maps.image_axes, maps.image_shape, strict=True)
            if a != "channel" or "channel" not in maps.axes
        }
        scale, copies = package.grouping.scale, package.grouping.copies
        finer = {m.name: labels_size(m, scale[m.name]) for m in layout.network_axes if m.name in scale}
        shape |= finer
        space = space_axes(maps.axes)
        sizes = tuple(int(finer.get(a) or maps.sizes[a] or 1) for a in space)
        of_maps, of_labels = 4 * int(maps.sizes.get("channel") or 1), 4
        each = -(-copies[0] * of_maps // math.prod(scale.values())) + copies[1] * of_labels
        method = package.grouping.method(package.root)
        each += _MORE.get(method or "", 0) * len(space)
        return cls(
            package.grouping,
            space,
            tuple(shape),
            tuple(shape.values()),
            _labels_dtype(dtype),
            sizes,
            each,
            math.prod(sizes) * each,
            method,
            is_exact(method),
        )

    @property
    def least_bytes(self) -> int:
        """Of the memory that the work on the smallest block takes."""
        return self._bytes_of(_CHUNKS[len(self.space)][-1])

    def in_blocks(self, room: int) -> "GroupPlan":
        """The same in the largest blocks whose work takes no more bytes of memory.

        Args:
            room: at least `least_bytes`.
        """
        each = self.each + 8 * _IDS_COPIES
        chunk = next(side for side in _CHUNKS[len(self.space)] if self._bytes_of(side) <= room)
        voxels = min(room // each // self._surroundings, _MOST_VOXELS)
        sides = _sides(self.sizes, voxels, chunk)
        return replace(self, each=each, bytes=room, block=sides, chunk=chunk)

    def again(self, decided: Mapping[str, Any], room: int) -> "GroupPlan":
        """The same as an earlier run has done it: `decisions` of its plan."""
        if decided["block"] is None:
            return self
        each = self.each + 8 * _IDS_COPIES
        return replace(
            self, each=each, bytes=room, block=tuple(decided["block"]), chunk=int(decided["chunk"])
        )

    @property
    def decisions(self) -> dict[str, Any]:
        """What `again` takes, as plain values."""
        return {"block": None if self.block is None else list(self.block), "chunk": self.chunk}

    @property
    def block_bytes(self) -> int:
        """Of the memory that the work on a block takes, or on the whole if there are none."""
        if self.block is None:
            return self.bytes
        return math.prod(self.block) * self.each * self._surroundings

    @property
    def _surroundings(self) -> int:
        """How many times the voxels of a block those of what is read with it may be."""
        return 1 if self.exact else int(2 ** len(self.space))

    def _bytes_of(self, side: int) -> int:
        voxels = math.prod(min(side, n) for n in self.sizes)
        return voxels * (self.each + 8 * _IDS_COPIES) * self._surroundings

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.grouping.to_json(),
            "labels": INSTANCES,
            "axes": list(self.axes),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "bytes": self.bytes,
            "block": None if self.block is None else list(self.block),
        }


def labels_size(axis: AxisMap, scale: int) -> int:
    """Voxels of the labels along an axis of the network, which has `scale` of them for one of the maps."""
    port = None if axis.network is None else axis.network.outputs[0]
    return axis.size if port is None else int(axis.size * port.scale * scale)


def _labels_dtype(dtype: str | None) -> str:
    try:
        found = np.dtype(dtype or _DTYPE)
    except TypeError as error:
        raise PlanError(
            f"dtype {dtype!r} is none that numpy has; use for example uint16 or uint32"
        ) from error
    if found.kind not in "iu":
        raise PlanError(f"dtype {dtype} is no type of labels: use uint16, uint32 or another integer")
    return str(found)


def _sides(sizes: tuple[int, ...], voxels: int, chunk: int) -> tuple[int, ...]:
    """Sides of blocks of at most so many voxels: about alike, multiples of the chunk, or an axis from end to end."""
    sides = dict.fromkeys(range(len(sizes)), 0)
    left = sorted(sides, key=lambda axis: sizes[axis])
    while left:
        axis = left.pop(0)
        side = int(voxels ** (1 / (len(left) + 1)) + 1e-6)
        sides[axis] = sizes[axis] if side >= sizes[axis] else max(chunk, side // chunk * chunk)
        voxels //= sides[axis]
    return tuple(sides.values())
