"""Objects of a saved probability map: a label image, in blocks where the map is larger than the memory."""

import itertools
from pathlib import Path

import xarray as xr

from im2im_zoo.core.axes import SPACE
from im2im_zoo.core.errors import EvaluationError, PlanError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.images import create_image, open_image, pixel_size_um
from im2im_zoo.instances.blockwise import group_in_blocks
from im2im_zoo.instances.blockwise.grid import BlockGrid
from im2im_zoo.instances.blockwise.sample import Code, Sample
from im2im_zoo.instances.blockwise.steps import StepRunner
from im2im_zoo.instances.label_image import LabelImage
from im2im_zoo.instances.thresholding import Thresholding
from im2im_zoo.runtime.execute.executors.in_process import InProcess
from im2im_zoo.runtime.measure.cost import resident_bytes
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.memory import default_budget

# Part of the memory that blocks use; the rest is for chunks of the files and freed blocks that the allocator keeps.
_SHARE = 0.7


def segment_map(
    image: xr.DataArray, thresholding: Thresholding, folder: Path, *, memory: int | None = None
) -> tuple[xr.DataArray, int]:
    """Find the objects of a map by a threshold, as `predict` does with the same settings; the blocks do not change the result.

    Args:
        image: map with the axes y and x, lazy or not; each position of axes other than z, y, x and channel has objects of its own.
        thresholding: how objects are found; of several channels it chooses one.
        folder: existing folder for the labels and for what is needed on the way.
        memory: bytes that may be used (default: half of the available memory).

    Returns:
        The label image (uint32), lazy, in a file in `folder`; and the number of objects at all positions.

    Raises:
        EvaluationError: the image has no y and x.
        PlanError: see `Thresholding.grouping`; or the memory is not enough.
    """
    axes = [str(a) for a in image.dims]
    space = [a for a in SPACE if a in axes]
    if not {"y", "x"} <= set(space):
        raise EvaluationError(f"the map has the axes {', '.join(axes)}; objects are found along (z,) y, x")
    names = image["channel"].values.tolist() if "channel" in image.coords else image.sizes.get("channel", 1)
    name = str(image.name or "the image")
    grouping = thresholding.grouping(name, names, space, pixel_size_um(image))
    if "channel" in axes:
        image = image.isel(channel=[grouping.kwargs["channel"]])
    grouping = type(grouping)(grouping.output, {**grouping.kwargs, "channel": 0})
    shape = {a: image.sizes[a] for a in axes if a != "channel"}
    plan = GroupPlan.for_maps(grouping, folder, shape, {a: shape[a] for a in space}, 1)
    plan = _within(plan, default_budget() if memory is None else memory)
    path, count = folder / "labels.ome.zarr", 0
    writer = create_image(
        path,
        axes=plan.axes,
        shape=plan.shape,
        dtype=plan.dtype,
        pixel_size_um=pixel_size_um(image),
        translation_um=image.attrs.get("translation_um"),
        time_step_s=image.attrs.get("time_step_s") if "time" in plan.axes else None,
        chunks=None if plan.block is None else _chunks(plan),
        attributes={"grouping": grouping.to_json()},
        labels=True,
    )
    outer = [a for a in plan.axes if a not in plan.space]
    with writer:
        for number, place in enumerate(itertools.product(*(range(shape[a]) for a in outer))):
            where = dict(zip(outer, place, strict=True))
            grid = BlockGrid(plan.sizes, plan.block or plan.sizes)
            code = Code(grouping, folder, allow_code=False)
            work = folder / f"blocks_{number}"
            sample = Sample(image.isel(where), plan.space, grid, work, code, plan.bytes, plan.each)
            target = LabelImage(writer, plan.axes, plan.shape, plan.dtype, plan.space, where, name)
            if plan.block is None:
                labels = sample.segment(grid.region(0))
                count += int(labels.max(initial=0))
                target.write(grid.region(0), labels)
            else:
                count += group_in_blocks(sample, target, StepRunner(InProcess()))[0]
    return open_image(path), count


def _within(plan: GroupPlan, memory: int) -> GroupPlan:
    """Return the plan as a whole if it fits the memory, else in blocks."""
    room = int(_SHARE * (memory - resident_bytes()))
    if plan.bytes <= room:
        return plan
    if room < plan.least_bytes:
        needed = int(resident_bytes() + plan.least_bytes / _SHARE) + 1
        raise PlanError(
            f"{bytes_text(memory)} of memory is not enough to find objects; pass --memory {needed} or more"
        )
    return plan.in_blocks(room)


def _chunks(plan: GroupPlan) -> list[int]:
    """Return chunks that no two blocks share."""
    blocks = dict(zip(plan.space, plan.block or (), strict=True))
    return [min(plan.chunk, blocks[a]) if a in blocks else 1 for a in plan.axes]
