"""Plan of the instance segmentation (grouping): shape of the label image, memory, and blocks.

Each position of the looped axes (such as a time point) is segmented separately, and its labels count from 1. It is
segmented as a whole if the memory allows, else in blocks (`instances.blockwise`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from im2im_zoo.core.axes import space_axes
from im2im_zoo.core.errors import PlanError
from im2im_zoo.instances.grouping import INSTANCES, AnyGrouping
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout

if TYPE_CHECKING:
    from im2im_zoo.package import Package

_DTYPE = "uint32"
# Blocks need object ids of 8 bytes in addition to the copies of maps and labels.
_IDS_COPIES = 6
# Additional bytes per voxel and axis, by method.
_MORE = {"watershed": 100}
# Additional bytes per voxel for components that are split.
_MORE_TO_SPLIT = 140
# Sides of the chunks of label images in blocks, by number of axes; the first with which a block fits the memory is used.
_CHUNKS = {2: (1024, 512, 256), 3: (128, 64, 32)}
# Largest block, in voxels.
_MOST_VOXELS = 2**26


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The instance segmentation of a prediction's only output.

    Attributes:
        grouping: the method and its arguments.
        space: axes of one sample's labels.
        axes, shape, dtype: of the label image: those of the output's image, without channels.
        sizes: voxels of one sample's labels along `space`.
        each: peak bytes per voxel of the labels.
        bytes: peak bytes of one call or of one block.
        method: name of the current method that gives the same labels as the package's file, if it is one of ours.
        exact: whether the labels are those of the whole image for any blocks.
        block: sides of the blocks in voxels, or None if a sample is segmented as a whole.
        chunk: side of the label image's chunks, if there are blocks.
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
    def of(
        cls,
        package: "Package",
        layout: Layout,
        dtype: str | None = None,
        grouping: AnyGrouping | None = None,
    ) -> "GroupPlan | None":
        """Plan the instance segmentation of a package, as a whole; None if it has none.

        Args:
            package: the model.
            layout: of the images.
            dtype: of the label image (default: uint32).
            grouping: to use instead of the package's.

        Raises:
            PlanError: the dtype is not an integer, or the size of the maps depends on the data.
        """
        grouping = grouping or package.grouping
        if grouping is None:
            return None
        (maps,) = layout.outputs
        if maps.image_shape is None:
            raise PlanError(
                f"{package.name}: the size of the output {maps.id} depends on the data, so instances cannot be segmented; "
                "write the maps with --no-grouping"
            )
        # If the tensor has no channel axis, the image's channels are looped over.
        shape = {
            a: n
            for a, n in zip(maps.image_axes, maps.image_shape, strict=True)
            if a != "channel" or "channel" not in maps.axes
        }
        scale = grouping.scale
        finer = {m.name: labels_size(m, scale[m.name]) for m in layout.network_axes if m.name in scale}
        shape |= finer
        space = space_axes(maps.axes)
        sizes = tuple(int(finer.get(a) or maps.sizes[a] or 1) for a in space)
        channels = int(maps.sizes.get("channel") or 1)
        return cls.for_maps(
            grouping, package.root, shape, dict(zip(space, sizes, strict=True)), channels, dtype
        )

    @classmethod
    def for_maps(
        cls,
        grouping: AnyGrouping,
        root: Path,
        shape: Mapping[str, int],
        sizes: Mapping[str, int],
        channels: int,
        dtype: str | None = None,
    ) -> "GroupPlan":
        """Plan the instance segmentation of maps, as a whole.

        Args:
            grouping: the method and its arguments.
            root: folder of the package.
            shape: voxels of the label image by axis.
            sizes: voxels of one sample's labels by axis of (z,) y, x.
            channels: number of the maps.
            dtype: of the label image (default: uint32).

        Raises:
            PlanError: the dtype is not an integer.
        """
        from im2im_zoo.instances.blockwise.run import is_exact

        scale, copies, method = grouping.scale, grouping.copies, grouping.method(root)
        of_maps, of_labels = 4 * channels, 4
        each = -(-copies[0] * of_maps // math.prod(scale.values())) + copies[1] * of_labels
        each += _MORE.get(method or "", 0) * len(sizes)
        if _is_split(grouping):
            each += _MORE_TO_SPLIT
        return cls(
            grouping,
            tuple(sizes),
            tuple(shape),
            tuple(shape.values()),
            _labels_dtype(dtype),
            tuple(sizes.values()),
            each,
            math.prod(sizes.values()) * each,
            method,
            is_exact(method),
        )

    @property
    def least_bytes(self) -> int:
        """Peak bytes for the smallest block."""
        return self._bytes_of(_CHUNKS[len(self.space)][-1])

    def in_blocks(self, room: int) -> "GroupPlan":
        """Return the plan with the largest blocks within a memory.

        Args:
            room: bytes for one block; at least `least_bytes`.
        """
        each = self.each + 8 * _IDS_COPIES
        chunk = next(side for side in _CHUNKS[len(self.space)] if self._bytes_of(side) <= room)
        voxels = min(room // each // self._surroundings, _MOST_VOXELS)
        sides = _sides(self.sizes, voxels, chunk)
        return replace(self, each=each, bytes=room, block=sides, chunk=chunk)

    def repeat(self, decided: Mapping[str, Any], room: int) -> "GroupPlan":
        """Return the plan with the blocks of an earlier run.

        Args:
            decided: `decisions` of its plan.
            room: bytes for one block.
        """
        if decided["block"] is None:
            return self
        each = self.each + 8 * _IDS_COPIES
        return replace(
            self, each=each, bytes=room, block=tuple(decided["block"]), chunk=int(decided["chunk"])
        )

    @property
    def decisions(self) -> dict[str, Any]:
        """The blocks as JSON values, for `repeat`."""
        return {"block": None if self.block is None else list(self.block), "chunk": self.chunk}

    @property
    def block_bytes(self) -> int:
        """Peak bytes for a block, or for the whole if there are no blocks."""
        if self.block is None:
            return self.bytes
        return math.prod(self.block) * self.each * self._surroundings

    @property
    def _surroundings(self) -> int:
        """Most voxels that are read for a block, as a multiple of its own."""
        is_alone = self.exact and not _is_split(self.grouping)
        return 1 if is_alone else int(2 ** len(self.space))

    def _bytes_of(self, side: int) -> int:
        voxels = math.prod(min(side, n) for n in self.sizes)
        return voxels * (self.each + 8 * _IDS_COPIES) * self._surroundings

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
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
    """Return the voxels of the labels along an axis of the network; `scale` is labels' voxels per map voxel."""
    port = None if axis.network is None else axis.network.outputs[0]
    return axis.size if port is None else int(axis.size * port.scale * scale)


def _is_split(grouping: AnyGrouping) -> bool:
    """Return whether components are split, for which blocks are read with their surroundings."""
    return bool(grouping.kwargs.get("split_touching"))


def _labels_dtype(dtype: str | None) -> str:
    try:
        found = np.dtype(dtype or _DTYPE)
    except TypeError as error:
        raise PlanError(f"dtype: {dtype!r} is not a numpy type; use for example uint16 or uint32") from error
    if found.kind not in "iu":
        raise PlanError(f"dtype: {dtype} cannot hold labels; use uint16, uint32 or another integer type")
    return str(found)


def _sides(sizes: tuple[int, ...], voxels: int, chunk: int) -> tuple[int, ...]:
    """Return sides of blocks of at most `voxels` voxels, about equal: multiples of the chunk, or a whole axis."""
    sides = dict.fromkeys(range(len(sizes)), 0)
    left = sorted(sides, key=lambda axis: sizes[axis])
    while left:
        axis = left.pop(0)
        side = int(voxels ** (1 / (len(left) + 1)) + 1e-6)
        sides[axis] = sizes[axis] if side >= sizes[axis] else max(chunk, side // chunk * chunk)
        voxels //= sides[axis]
    return tuple(sides.values())
