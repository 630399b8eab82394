"""Plan a prediction: axes, halo, and tiles (`cutting`) within the memory (`memory_model`), without reading voxels."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text, size_option
from im2im_zoo.instances.grouping import AnyGrouping
from im2im_zoo.runtime.layout.image_layout import AxisMap, Layout
from im2im_zoo.runtime.layout.mapping import images_by_input, map_axes
from im2im_zoo.runtime.plan.cutting import (
    axis_plan,
    best_tile,
    blended_tiles,
    given_tile,
    one_tile,
    parts_text,
)
from im2im_zoo.runtime.plan.grouping import GroupPlan
from im2im_zoo.runtime.plan.memory import Cost, Projection, default_budget
from im2im_zoo.runtime.plan.memory_model import MemoryModel
from im2im_zoo.runtime.plan.plan import AxisPlan, HaloSource, Plan

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Halo = int | Mapping[str, int] | Literal["declared"]
Images = xr.DataArray | Mapping[str, xr.DataArray]


def plan_prediction(
    package: "Package",
    images: Images,
    *,
    layout: Layout | None = None,
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    cuts: Mapping[str, Mapping[str, int]] | None = None,
    halo: Halo = "declared",
    halo_source: HaloSource | None = None,
    halo_note: str = "",
    blend: bool = False,
    weights: str | None = None,
    backend: str = "",
    precision: str = "float32",
    cost: Cost | None = None,
    dtype: str | None = None,
    workers: int = 1,
    whole: bool = False,
    group: bool = True,
    grouping: AnyGrouping | None = None,
    group_blocks: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Plan:
    """Plan the prediction of a package on an image.

    Args:
        package: the model.
        images: lazy; that of the main input, or all by input. Only sizes, axes and dtypes are read.
        layout: of these images (default: that of `map_axes`).
        memory: bytes that all processes may use together (default: half of the available memory).
        tile: voxels of a tile by axis, halo included (default: the tiles with the least computation within `memory`).
        cuts: `tile`, `cut` and `halo` by axis of an earlier plan (`Plan.cuts`), instead of `tile` and `halo`.
        halo: voxels of the input at each end of a tile that are discarded: for all axes, by axis, or as the RDF declares.
            See `measure.overlap` for the measured halo.
        halo_source, halo_note: origin of the halo, for the plan (default: `declared` or `given`).
        blend: average overlapping tiles, for a network that no halo makes exact; the halo is then a quarter of a tile.
        weights, backend, precision: the selected weights, library and number type (default: the first of
            `package.weights`).
        cost: of the network (default: an estimate).
        dtype: of the output images (default: that of the RDF), or of the label image.
        workers: processes that run tiles.
        whole: plan one tile per sample, regardless of the memory.
        group: whether maps are post-processed into instance labels, if the package can.
        grouping: instance segmentation to use instead of the package's.
        group_blocks: blocks of an earlier plan (`GroupPlan.decisions`; default: as a whole if that fits `memory`).
        warnings: to include in the plan.

    Raises:
        PlanError: the model does not take the image, or the memory is not enough; the message names the minimum.
    """
    given = images_by_input(package, images)
    layout = layout or map_axes(package, given)
    planned = GroupPlan.of(package, layout, dtype, grouping) if group else None
    if planned is None:
        layout = _with_dtype(layout, dtype)
    chosen = _weights(package, weights)
    source: HaloSource
    halos, source = _halos(layout.network_axes, halo)
    cost = cost or Cost.guess(package.path(package.weights_entry(chosen)).stat().st_size)
    budget = default_budget() if memory is None else memory
    memory_model = MemoryModel.of(package, layout, given, cost, budget, workers, blend, planned)
    if planned is not None and not whole:
        planned, memory_model = _limit_grouping(planned, memory_model, group_blocks)
    if cuts is not None:
        axes = tuple(axis_plan(m, **cuts[m.name]) for m in layout.network_axes)
    elif blend and not whole:
        axes = blended_tiles(layout.network_axes, tile, memory_model)
        source, halo_source = "blending", "blending"
    elif whole:
        axes = one_tile(layout.network_axes, halos)
    elif tile is not None:
        axes = given_tile(layout.network_axes, halos, tile)
    else:
        axes = best_tile(layout.network_axes, halos, memory_model)
    projected = memory_model.projection(axes)
    if projected.total > budget and not whole:
        raise PlanError(_too_small(projected, budget, axes, asked=tile is not None))
    cut = any(len(a.spans) > 1 for a in axes)
    return Plan(
        model=package.name,
        version=package.version,
        weights_format=chosen,
        backend=backend,
        precision=precision,
        layout=layout,
        axes=axes,
        halo_source=halo_source or source,
        halo_note=halo_note,
        blend=blend and cut,
        whole_before=memory_model.whole_before,
        whole_after=memory_model.whole_after,
        memory=projected,
        budget=budget,
        cost=cost,
        workers=workers,
        warnings=(*warnings, *(_no_halo(axes, source) if cut else ())),
        grouping=planned,
    )


def _limit_grouping(
    grouping: GroupPlan, memory_model: MemoryModel, decided: Mapping[str, Any] | None
) -> tuple[GroupPlan, MemoryModel]:
    """Plan instance segmentation within the budget: as a whole, or in blocks.

    Args:
        grouping: as a whole.
        memory_model: the memory model, which gives the budget.
        decided: blocks of an earlier plan, if there is one.

    Raises:
        PlanError: the memory is not enough for the smallest block.
    """
    fits = memory_model.projection_of(0).of_grouping <= memory_model.budget
    in_blocks = not fits if decided is None else decided["block"] is not None
    if not in_blocks and fits:
        return grouping, memory_model
    memory_model = replace(memory_model, group_workers=memory_model.workers) if in_blocks else memory_model
    room = memory_model.projection_of(0).room_to_group(memory_model.budget)
    least = grouping.least_bytes if decided is None else grouping.repeat(decided, 0).block_bytes
    if room < least:
        needed = replace(memory_model, grouping=least).projection_of(0).of_grouping + 4 * (
            1 + memory_model.workers
        )
        what = "a block of the image" if in_blocks else "the whole image at once"
        raise PlanError(
            f"{bytes_text(memory_model.budget)} of memory is not enough for instance segmentation: maps and labels of {what} need "
            f"{bytes_text(least)}, and {bytes_text(needed)} with the process; pass --memory {size_option(needed)} or more, or write only "
            "the maps with --no-grouping"
        )
    chosen = grouping.in_blocks(room) if decided is None else grouping.repeat(decided, room)
    return chosen, replace(memory_model, grouping=chosen.bytes)


def _with_dtype(layout: Layout, dtype: str | None) -> Layout:
    if dtype is None:
        return layout
    try:
        name = str(np.dtype(dtype))
    except TypeError as error:
        raise PlanError(
            f"dtype: {dtype!r} is not a numpy type; use for example uint8, uint16 or float32"
        ) from error
    return replace(layout, outputs=tuple(replace(o, dtype=name) for o in layout.outputs))


def _weights(package: "Package", weights: str | None) -> str:
    if weights is None:
        return package.weights[0]
    if weights not in package.weights:
        raise PlanError(
            f"{package.name} has no {weights!r} weights that can be run; use one of {', '.join(package.weights)}"
        )
    return weights


def _halos(axes: Sequence[AxisMap], halo: Halo) -> tuple[dict[str, int], HaloSource]:
    if halo == "declared":
        declared = any(m.declared_halo is not None for m in axes)
        return {m.name: m.declared_halo or 0 for m in axes}, "declared" if declared else "none"
    given = dict(halo) if isinstance(halo, Mapping) else {m.name: halo for m in axes}
    unknown = sorted(set(given) - {m.name for m in axes})
    if unknown or any(h < 0 for h in given.values()):
        raise PlanError(
            f"halo: {given} is invalid; use a number of voxels, 0 or more, for the axes {', '.join(m.name for m in axes)}"
        )
    return {m.name: given.get(m.name, m.declared_halo or 0) for m in axes}, "given"


def _no_halo(axes: Sequence[AxisPlan], source: HaloSource) -> list[str]:
    cut = [a.name for a in axes if len(a.spans) > 1 and not a.halo]
    if not cut or source not in ("none", "declared", "given"):
        return []
    why = "the RDF declares none" if source == "none" else "it is 0"
    return [
        f"no halo along {', '.join(cut)} ({why}): the result will have seams between tiles; set one with --halo"
    ]


def _too_small(projected: Projection, budget: int, axes: Sequence[AxisPlan], *, asked: bool) -> str:
    tile = " x ".join(str(a.tile) for a in axes)
    return (
        f"{bytes_text(budget)} of memory is not enough for tiles of {tile}, which need "
        f"{bytes_text(projected.total)} ({parts_text(projected)}); pass --memory {size_option(projected.total)} or more"
        + (", or a smaller --tile" if asked else "")
    )
