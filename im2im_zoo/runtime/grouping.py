"""The last step of a package with grouping: its maps, whole, become labels. What that makes, what memory it takes, and doing it.

Each position of the axes that are looped over (a time point) is grouped apart, and its labels count from 1. One is in memory
at a time, as a whole. Where the maps come from and the labels go is the caller's matter.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from im2im_zoo.axes import space_axes
from im2im_zoo.errors import PlanError
from im2im_zoo.processing.grouping import INSTANCES, AnyGrouping, GroupFunction
from im2im_zoo.runtime.mapping import AxisMap, Layout

if TYPE_CHECKING:
    from im2im_zoo.package import Package
    from im2im_zoo.runtime.plan import Plan
    from im2im_zoo.runtime.tile_job import Sink

_DTYPE = "uint32"


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """What grouping makes of a prediction's only output.

    Attributes:
        grouping: how.
        space: the axes of one call's labels.
        axes, shape, dtype: of the label image: those of the output's image, without channels.
        bytes: of the memory that a call takes at most.
    """

    grouping: AnyGrouping
    space: tuple[str, ...]
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @classmethod
    def of(cls, package: "Package", layout: Layout, dtype: str | None = None) -> "GroupPlan | None":
        """That of a package, or None if it has no grouping.

        Args:
            dtype: of the label image (default: uint32).

        Raises:
            PlanError: a dtype that holds no labels, or maps whose size depends on the data.
        """
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
        shape |= {m.name: labels_size(m, scale[m.name]) for m in layout.network_axes if m.name in scale}
        voxels = math.prod(int(maps.sizes[a] or 1) for a in space_axes(maps.axes))
        of_maps, of_labels = 4 * int(maps.sizes.get("channel") or 1), 4
        return cls(
            package.grouping,
            space_axes(maps.axes),
            tuple(shape),
            tuple(shape.values()),
            _labels_dtype(dtype),
            voxels * (copies[0] * of_maps + copies[1] * of_labels * math.prod(scale.values())),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **self.grouping.to_json(),
            "labels": INSTANCES,
            "axes": list(self.axes),
            "shape": list(self.shape),
            "dtype": self.dtype,
            "bytes": self.bytes,
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


def group_samples(
    plan: "Plan",
    function: GroupFunction,
    maps: xr.DataArray,
    sink: "Sink",
    *,
    finished: Collection[int] = (),
    done: Callable[[int, int], None] | None = None,
) -> None:
    """Group the maps of all samples but those that are finished.

    Args:
        plan: with a grouping.
        function: of the grouping.
        maps: the whole output image, lazy or not.
        sink: where the label image goes.
        finished: numbers of samples.
        done: called with the number of each sample that is written, and how many objects it has.

    Raises:
        PackageError: what the function does not do.
        PlanError: more objects than the label image's type has numbers.
        ImageError: maps that cannot be read, or labels that cannot be written.
    """
    ours = plan.grouping
    if ours is None:
        raise ValueError("a plan without grouping")
    for sample in range(plan.samples):
        if sample in finished:
            continue
        position = plan.position(sample)
        one = maps.isel(position)
        added = [a for a in ("channel", *ours.space) if a not in one.dims]
        whole = one.expand_dims(added).transpose("channel", *ours.space).to_numpy()
        labels = function(np.ascontiguousarray(whole, np.float32))
        del whole
        objects = int(labels.max(initial=0))
        if objects > np.iinfo(ours.dtype).max:
            raise PlanError(
                f"{plan.model}: there are {objects} objects, more than {ours.dtype} has numbers; give a larger "
                "--dtype, and start over with --restart"
            )
        kept = xr.DataArray(labels, dims=ours.space).isel({a: 0 for a in added if a != "channel"})
        # Of a coarser grid, the last map's voxel may reach beyond the image.
        kept = kept.isel({a: slice(n) for a, n in zip(ours.axes, ours.shape, strict=True) if a in kept.dims})
        block = kept.expand_dims(list(position)).transpose(*ours.axes).to_numpy()
        region = {a: slice(0, n) for a, n in zip(ours.axes, ours.shape, strict=True)}
        region |= {a: slice(p, p + 1) for a, p in position.items()}
        sink.write(region, block.astype(ours.dtype, copy=False))
        if done is not None:
            done(sample, objects)
