"""The memory of a prediction as a function of its tiles: values per voxel, and operations on whole images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from im2im_zoo.images.large_chunks import decoding_bytes
from im2im_zoo.images.lazy import DECODING_KEY
from im2im_zoo.processing import needs_statistics, whole_axes
from im2im_zoo.runtime.layout.image_layout import Layout
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.memory import Cost, Projection, project
from im2im_zoo.runtime.plan.plan import AxisPlan

if TYPE_CHECKING:
    from im2im_zoo.package import Package


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """The quantities that determine the memory of a prediction, except for the size of its tiles.

    Attributes:
        cost: of the network.
        budget: allowed peak, in bytes.
        in_values, out_values: values of all input and output tensors per voxel of the reference.
        in_itemsize: bytes per value of the image files.
        chunk_bytes: uncompressed bytes of one chunk of each input.
        decoding_bytes: most bytes that decoding takes at once, of each input.
        whole_before: inputs whose preprocessing needs the whole sample at once.
        whole_after: outputs whose postprocessing needs the whole output or its statistics.
        whole_bytes: bytes of all copies of whole images in memory.
        workers: processes that run tiles.
        grouping: bytes for instance segmentation, in each of `group_workers` processes.
        group_workers: processes that segment blocks.
    """

    cost: Cost
    budget: int
    in_values: float
    out_values: float
    in_itemsize: int
    chunk_bytes: int
    decoding_bytes: int
    whole_before: frozenset[str]
    whole_after: frozenset[str]
    whole_bytes: int
    workers: int
    grouping: int
    group_workers: int = 1

    @classmethod
    def of(
        cls,
        package: "Package",
        layout: Layout,
        images: Mapping[str, xr.DataArray],
        cost: Cost,
        budget: int,
        workers: int,
        blend: bool,
        grouping: GroupPlan | None,
    ) -> "MemoryModel":
        """Derive the model from a package, its images and the requested resources."""
        before, after, whole = set(), set(), 0
        for spec, source in zip(package.inputs, layout.inputs, strict=True):
            custom = package.before_rdf.get(source.id, ())
            if source.given and _mixes_voxels([*custom, *spec.preprocessing], spec.axes):
                before.add(source.id)
                # An operation on the whole needs the array, its result, and as much again for temporaries.
                whole += 4 * 4 * math.prod(source.sizes.values())
        for number, target in enumerate(layout.outputs):
            operations = list(package.outputs[number].postprocessing)
            mixes = _mixes_voxels(operations, package.outputs[number].axes)
            if mixes or needs_statistics(operations) or None in target.sizes.values():
                after.add(target.id)
            if mixes:
                whole += 4 * 4 * math.prod(n or 1 for n in target.sizes.values())
        itemsize = max((images[i.id].dtype.itemsize for i in layout.inputs if i.given), default=4)
        chunks = [_chunk_and_decoding_bytes(images[i.id]) for i in layout.inputs if i.given]
        return cls(
            cost,
            budget,
            sum(_values(layout, i.axes, i.sizes, n, 0) for n, i in enumerate(layout.inputs) if i.given),
            sum(_values(layout, o.axes, o.sizes, n, 1) for n, o in enumerate(layout.outputs)),
            itemsize,
            sum(one for one, _ in chunks),
            sum(most for _, most in chunks),
            frozenset(before),
            frozenset(after),
            whole,
            workers,
            0 if grouping is None else grouping.bytes,
        )

    def projection(self, axes: Sequence[AxisPlan]) -> Projection:
        """Project the peak memory for the tiles of these axes."""
        return self.projection_of(math.prod(a.tile for a in axes))

    def projection_of(self, tile_voxels: int) -> Projection:
        """Project the peak memory for tiles of `tile_voxels` voxels of the reference."""
        return project(
            self.cost,
            tile_voxels=tile_voxels,
            in_values=self.in_values,
            out_values=self.out_values,
            in_itemsize=self.in_itemsize,
            chunk_bytes=self.chunk_bytes,
            decoding_bytes=self.decoding_bytes,
            whole_bytes=self.whole_bytes,
            workers=self.workers,
            grouping=self.grouping,
            group_workers=self.group_workers,
        )


def _values(
    layout: Layout, axes: Sequence[str], sizes: Mapping[str, int | None], number: int, side: Literal[0, 1]
) -> float:
    """Return the values of a tensor per voxel of the reference; `side` is 0 for inputs, 1 for outputs."""
    networks = {m.name: m.network for m in layout.network_axes if m.network is not None}
    total = 1.0
    for name in axes:
        if name == "batch":
            continue
        port = None
        if name in networks:
            port = (networks[name].inputs, networks[name].outputs)[side][number]
        total *= float(port.scale) if port is not None else float(sizes[name] or 1)
    return total


def _chunk_and_decoding_bytes(image: xr.DataArray) -> tuple[int, int]:
    """Return the uncompressed bytes of one chunk of an image file, and the most that decoding takes at once; 0 if it is not chunked."""
    preferred = image.encoding.get("preferred_chunks")
    if not preferred:
        return 0, 0
    chunks = [int(preferred.get(a, 1)) for a in image.dims]
    one = math.prod(chunks) * image.dtype.itemsize
    return one, image.encoding.get(DECODING_KEY) or decoding_bytes(image.shape, chunks, image.dtype.itemsize)


def _mixes_voxels(operations: Sequence[Any], axes: Sequence[Any]) -> bool:
    """Return whether an operation mixes voxels along any axis but channel, so that it cannot be done per tile."""
    names = [str(axis.id) for axis in axes]
    return any(not whole_axes(operation, names) <= {"channel"} for operation in operations)
