"""Make the plan of a prediction: the axes, the halo, and the tiles (`cutting`) that fit the memory (`fit`). Reads no voxel."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text
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
from im2im_zoo.runtime.plan.memory_model import Fit
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
    group_blocks: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> Plan:
    """Plan the prediction of a package on an image.

    Args:
        package: the model.
        images: lazy; the main input's, or all by input. Sizes, axes and dtypes are looked at, voxels are not.
        layout: of these images (default: that of `map_axes`).
        memory: bytes that all processes together may take (default: half of what is available).
        tile: voxels of a tile by axis, halo included (default: those that compute the least within `memory`).
        cuts: `tile`, `cut` and `halo` by axis, as an earlier plan had them (`Plan.cuts`), instead of both.
        halo: voxels of the input at each end of a tile that are not kept; for all axes, by axis, or as the RDF says.
            How far a network really reaches is measured in `overlap`.
        halo_source, halo_note: what the plan says of it (default: `declared` or `given`).
        blend: average overlapping tiles, for a network that nothing makes exact; the halo is then a quarter of a tile.
        weights, backend, precision: what runs (default: the first of `package.weights`).
        cost: what the network takes (default: a guess).
        dtype: of the output images (default: that of the RDF), or of the labels that they are grouped into.
        workers: processes that run tiles.
        whole: one tile for each sample, whatever it takes.
        group: whether the maps of a package with grouping are grouped.
        group_blocks: how an earlier plan grouped them (`GroupPlan.decisions`; default: at once if that fits `memory`).
        warnings: to be kept in the plan.

    Raises:
        PlanError: an image that the model does not take, or a budget that is too small; the message says
            what is the least.
    """
    given = images_by_input(package, images)
    layout = layout or map_axes(package, given)
    grouping = GroupPlan.of(package, layout, dtype) if group else None
    if grouping is None:
        layout = _with_dtype(layout, dtype)
    chosen = _weights(package, weights)
    said: HaloSource
    halos, said = _halos(layout.network_axes, halo)
    cost = cost or Cost.guess(package.path(package.weights_entry(chosen)).stat().st_size)
    budget = default_budget() if memory is None else memory
    fit = Fit.of(package, layout, given, cost, budget, workers, blend, grouping)
    if grouping is not None and not whole:
        grouping, fit = _within(grouping, fit, group_blocks)
    if cuts is not None:
        axes = tuple(axis_plan(m, **cuts[m.name]) for m in layout.network_axes)
    elif blend and not whole:
        axes = blended_tiles(layout.network_axes, tile, fit)
        said, halo_source = "blending", "blending"
    elif whole:
        axes = one_tile(layout.network_axes, halos)
    elif tile is not None:
        axes = given_tile(layout.network_axes, halos, tile)
    else:
        axes = best_tile(layout.network_axes, halos, fit)
    projected = fit.projection(axes)
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
        halo_source=halo_source or said,
        halo_note=halo_note,
        blend=blend and cut,
        whole_before=fit.whole_before,
        whole_after=fit.whole_after,
        memory=projected,
        budget=budget,
        cost=cost,
        workers=workers,
        warnings=(*warnings, *(_no_halo(axes, said) if cut else ())),
        grouping=grouping,
    )


def _within(grouping: GroupPlan, fit: "Fit", decided: Mapping[str, Any] | None) -> tuple[GroupPlan, "Fit"]:
    """Grouping within the budget, whatever the tiles: the whole at once, or in blocks.

    Raises:
        PlanError: not even the smallest block fits.
    """
    fits = fit.projection_of(0).of_grouping <= fit.budget
    in_blocks = not fits if decided is None else decided["block"] is not None
    if not in_blocks and fits:
        return grouping, fit
    fit = replace(fit, group_workers=fit.workers) if in_blocks else fit
    room = fit.projection_of(0).room_to_group(fit.budget)
    least = grouping.least_bytes if decided is None else grouping.again(decided, 0).block_bytes
    if room < least:
        needed = replace(fit, grouping=least).projection_of(0).of_grouping + 4 * (1 + fit.workers)
        what = "a block of the image" if in_blocks else "the whole image at once"
        raise PlanError(
            f"the memory of {bytes_text(fit.budget)} does not suffice: grouping takes the maps and labels of {what}, "
            f"{bytes_text(least)}, and {bytes_text(needed)} with the process; give at least {needed} bytes with --memory, or "
            "stop at the maps with --no-grouping"
        )
    chosen = grouping.in_blocks(room) if decided is None else grouping.again(decided, room)
    return chosen, replace(fit, grouping=chosen.bytes)


def _with_dtype(layout: Layout, dtype: str | None) -> Layout:
    if dtype is None:
        return layout
    try:
        name = str(np.dtype(dtype))
    except TypeError as error:
        raise PlanError(
            f"dtype {dtype!r} is none that numpy has; use for example uint8, uint16 or float32"
        ) from error
    return replace(layout, outputs=tuple(replace(o, dtype=name) for o in layout.outputs))


def _weights(package: "Package", weights: str | None) -> str:
    if weights is None:
        return package.weights[0]
    if weights not in package.weights:
        raise PlanError(
            f"{package.name} has no {weights!r} weights that can be run; it has {', '.join(package.weights)}"
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
            f"halo {given}: give a number of voxels, 0 or more, for axes of {', '.join(m.name for m in axes)}"
        )
    return {m.name: given.get(m.name, m.declared_halo or 0) for m in axes}, "given"


def _no_halo(axes: Sequence[AxisPlan], source: HaloSource) -> list[str]:
    cut = [a.name for a in axes if len(a.spans) > 1 and not a.halo]
    if not cut or source not in ("none", "declared", "given"):
        return []
    why = "the RDF declares none" if source == "none" else "it is 0"
    return [f"no halo along {', '.join(cut)} ({why}): the result will have seams there; give one with --halo"]


def _too_small(projected: Projection, budget: int, axes: Sequence[AxisPlan], *, asked: bool) -> str:
    tile = " x ".join(str(a.tile) for a in axes)
    return (
        f"the memory of {bytes_text(budget)} does not suffice for tiles of {tile}: they take "
        f"{bytes_text(projected.total)} ({parts_text(projected)}); give at least {projected.total} bytes with --memory"
        + (", or smaller tiles" if asked else "")
    )
