"""Make the plan of a prediction: the axes, the halo, and the tiles that fit the memory. Reads no voxel.

Tiles are chosen to compute the fewest voxels, the image's and those computed twice in halos, within the
projected memory: larger tiles compute less and take more, and the first and last of a few large ones keep the rest waiting.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.errors import PlanError
from im2im_zoo.runtime.grouping import GroupPlan
from im2im_zoo.runtime.mapping import AxisMap, Layout, images_by_input, map_axes
from im2im_zoo.runtime.memory import Cost, Projection, bytes_text, default_budget, project
from im2im_zoo.runtime.plan import AxisPlan, HaloSource, Plan
from im2im_zoo.runtime.tiling import Grid, candidates, spans, split_axis

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Halo = int | Mapping[str, int] | Literal["declared"]
Images = xr.DataArray | Mapping[str, xr.DataArray]

# Where nothing makes tiles exact, they overlap by a quarter of their size at each end.
_BLENDED_PART = 4


def plan_prediction(
    package: "Package",
    images: Images,
    *,
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
    layout = map_axes(package, given)
    grouping = GroupPlan.of(package, layout, dtype) if group else None
    if grouping is None:
        layout = _with_dtype(layout, dtype)
    chosen = _weights(package, weights)
    said: HaloSource
    halos, said = _halos(layout.network_axes, halo)
    cost = cost or Cost.guess(package.path(package.weights_entry(chosen)).stat().st_size)
    budget = default_budget() if memory is None else memory
    fit = _Fit.of(package, layout, given, cost, budget, workers, blend, grouping)
    if grouping is not None and not whole:
        grouping, fit = _within(grouping, fit, group_blocks)
    if cuts is not None:
        axes = tuple(_axis_plan(m, **cuts[m.name]) for m in layout.network_axes)
    elif blend and not whole:
        axes = _blended(layout.network_axes, tile, fit)
        said, halo_source = "blending", "blending"
    elif whole:
        axes = _one_tile(layout.network_axes, halos)
    elif tile is not None:
        axes = _given_tile(layout.network_axes, halos, tile)
    else:
        axes = _best_tile(layout.network_axes, halos, fit)
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


def _within(grouping: GroupPlan, fit: "_Fit", decided: Mapping[str, Any] | None) -> tuple[GroupPlan, "_Fit"]:
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


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a tiling takes of the memory, apart from the tiling itself. `*_values`: for one voxel of the reference."""

    cost: Cost
    budget: int
    in_values: float
    out_values: float
    in_itemsize: int
    chunk_bytes: int
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
    ) -> "_Fit":
        from im2im_zoo.processing import needs_statistics

        before, after, whole = set(), set(), 0
        for spec, source in zip(package.inputs, layout.inputs, strict=True):
            custom = package.before_rdf.get(source.id, ())
            if source.given and _mixes_voxels([*custom, *spec.preprocessing]):
                before.add(source.id)
                # An operation on the whole: the array, its result, and as much for what it does within.
                whole += 4 * 4 * math.prod(source.sizes.values())
        for number, target in enumerate(layout.outputs):
            operations = list(package.outputs[number].postprocessing)
            mixes = _mixes_voxels(operations)
            if mixes or needs_statistics(operations) or None in target.sizes.values():
                after.add(target.id)
            if mixes:
                whole += 4 * 4 * math.prod(n or 1 for n in target.sizes.values())
        itemsize = max((images[i.id].dtype.itemsize for i in layout.inputs if i.given), default=4)
        return cls(
            cost,
            budget,
            sum(_values(layout, i.axes, i.sizes, n, 0) for n, i in enumerate(layout.inputs) if i.given),
            sum(_values(layout, o.axes, o.sizes, n, 1) for n, o in enumerate(layout.outputs)),
            itemsize,
            sum(_chunk_bytes(images[i.id]) for i in layout.inputs if i.given),
            frozenset(before),
            frozenset(after),
            whole,
            workers,
            0 if grouping is None else grouping.bytes,
        )

    def projection(self, axes: Sequence[AxisPlan]) -> Projection:
        return self.projection_of(math.prod(a.tile for a in axes))

    def projection_of(self, tile_voxels: int) -> Projection:
        return project(
            self.cost,
            tile_voxels=tile_voxels,
            in_values=self.in_values,
            out_values=self.out_values,
            in_itemsize=self.in_itemsize,
            chunk_bytes=self.chunk_bytes,
            whole_bytes=self.whole_bytes,
            workers=self.workers,
            grouping=self.grouping,
            group_workers=self.group_workers,
        )


def _values(
    layout: Layout, axes: Sequence[str], sizes: Mapping[str, int | None], number: int, side: Literal[0, 1]
) -> float:
    """Values of a tensor for one voxel of the reference."""
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


def _chunk_bytes(image: xr.DataArray) -> int:
    """Bytes of one chunk of a file, uncompressed; 0 if it is not stored in chunks."""
    chunks = image.encoding.get("preferred_chunks") or {}
    return math.prod(int(chunks.get(a, 1)) for a in image.dims) * image.dtype.itemsize if chunks else 0


def _mixes_voxels(operations: Sequence[Any]) -> bool:
    """Whether an operation makes a voxel from voxels elsewhere in the image, so that it cannot be done per tile."""
    return any(
        op.id == "custom" or (op.id == "softmax" and str(op.kwargs.axis) != "channel") for op in operations
    )


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


def _grid(axis: AxisMap, halo: int) -> Grid:
    if axis.grid is None:
        raise PlanError(f"the axis {axis.name} has no sizes")
    if axis.grid.fixed and axis.network is not None:
        scales = [p.scale.denominator for p in (*axis.network.inputs, *axis.network.outputs) if p is not None]
        return Grid.of_fixed_size(axis.grid.minimum, max(halo, axis.crop), math.lcm(*scales))
    return axis.grid


def _one_tile(maps: Sequence[AxisMap], halos: Mapping[str, int]) -> tuple[AxisPlan, ...]:
    axes = []
    for m in maps:
        grid = _grid(m, halos[m.name])
        size = grid.at_least(m.size + 2 * m.crop)
        if grid.fixed and size > grid.minimum:
            raise PlanError(
                f"the network takes {grid.minimum} voxels along {m.name} only, so {m.size} cannot be run as a whole; use tiles"
            )
        axes.append(_axis_plan(m, halos[m.name], size, max(size, m.size)))
    return tuple(axes)


def _given_tile(
    maps: Sequence[AxisMap], halos: Mapping[str, int], tile: Mapping[str, int]
) -> tuple[AxisPlan, ...]:
    cut_axes = [m.name for m in maps if m.role == "tile"]
    unknown = sorted(set(tile) - set(cut_axes))
    if unknown:
        raise PlanError(f"tile: {', '.join(unknown)} is no axis that is cut; these are {', '.join(cut_axes)}")
    axes: list[AxisPlan] = []
    for m in maps:
        grid = _grid(m, halos[m.name])
        if m.role != "tile":
            axes += _one_tile([m], halos)
            continue
        size = grid.minimum if grid.fixed else grid.at_least(m.size + 2 * m.crop)
        size = min(size, tile.get(m.name, size))
        try:
            cut = split_axis(m.size, size, halos[m.name], grid, m.crop)
        except PlanError as error:
            raise PlanError(f"tile along {m.name}: {error}") from error
        axes.append(_axis_plan(m, halos[m.name], size, cut[0].inner.stop if len(cut) > 1 else m.size))
    return tuple(axes)


def _blended(maps: Sequence[AxisMap], tile: Mapping[str, int] | None, fit: _Fit) -> tuple[AxisPlan, ...]:
    """The largest tiles that fit, that overlap by half where they are cut; one tile if the image fits."""
    none = {m.name: 0 for m in maps}
    if tile is None:
        largest = _best_tile(maps, none, fit)
        if all(len(a.spans) == 1 for a in largest):
            return largest
        tile = {a.name: a.tile for a, m in zip(largest, maps, strict=True) if m.role == "tile"}
    halos = none | {name: size // _BLENDED_PART for name, size in tile.items() if name in none}
    return _given_tile(maps, halos, tile)


def _best_tile(maps: Sequence[AxisMap], halos: Mapping[str, int], fit: _Fit) -> tuple[AxisPlan, ...]:
    """One tile if the image fits; else those that take the least time of those that fit; of equals, the fewest.

    That is the time for the voxels that they compute, and for half a tile more: the memory that the first one touches has to be
    cleared, and nothing overlaps with reading it and with writing the last (measured: a sixth to a whole of a tile's time).
    """
    options = [_options(m, halos[m.name]) for m in maps]
    room = _largest_tile_voxels(fit)
    best: tuple[tuple[int, int], tuple[tuple[int, int, int], ...]] | None = None
    smallest = math.prod(min(t for t, _, _ in o) for o in options)
    for chosen in itertools.product(*_thinned(options)):
        voxels = math.prod(t for t, _, _ in chosen)
        if voxels > room:
            continue
        count = math.prod(n for _, n, _ in chosen)
        key = (voxels * (2 * count + 1) * (count > 1), count)
        if best is None or key < best[0]:
            best = (key, chosen)
    if best is None:
        projected = fit.projection_of(smallest)
        raise PlanError(
            f"the memory of {bytes_text(fit.budget)} does not suffice: the smallest tile, {smallest} voxels, takes "
            f"{bytes_text(projected.total)} ({_parts(projected)}); give at least {projected.total} bytes with --memory"
        )
    return tuple(_axis_plan(m, halos[m.name], t, c) for m, (t, _, c) in zip(maps, best[1], strict=True))


def _options(m: AxisMap, halo: int) -> list[tuple[int, int, int]]:
    """(tile, how many, cut) of all ways to cut an axis that are worth considering."""
    grid = _grid(m, halo)
    if m.role != "tile":
        (axis,) = _one_tile([m], {m.name: halo})
        return [(axis.tile, 1, axis.cut)]
    found = [(t, -(-m.size // c), c) for c, t in candidates(m.size, halo, grid, m.crop)]
    if not found:
        least = 2 * max(halo, m.crop) + grid.step
        raise PlanError(
            f"the network takes {grid.minimum} voxels along {m.name} only, which a halo of {halo} leaves "
            f"nothing of (it takes {least} or more); give a smaller one with --halo"
        )
    return found


def _thinned(
    options: list[list[tuple[int, int, int]]], most: int = 200_000
) -> list[list[tuple[int, int, int]]]:
    """Fewer options where their combinations are too many to look at: every k-th, the extremes always."""
    cut = sum(1 for o in options if len(o) > 1)
    limit = max(2, int(most ** (1 / max(1, cut))))
    return [
        o if len(o) <= limit else [o[round(i * (len(o) - 1) / (limit - 1))] for i in range(limit)]
        for o in options
    ]


def _largest_tile_voxels(fit: _Fit) -> int:
    """How many voxels a tile may have within the budget, by bisection of the projection."""
    low, high = 0, 1
    while fit.projection_of(high).total <= fit.budget and high < 2**60:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit.projection_of(middle).total <= fit.budget else (low, middle)
    return low


def _axis_plan(m: AxisMap, halo: int, tile: int, cut: int) -> AxisPlan:
    grid = _grid(m, halo)
    cuts = spans(m.size, cut, tile, halo, grid, m.crop)
    return AxisPlan(m.name, m.size, grid.at_least(m.size + 2 * m.crop), tile, cut, halo, tuple(cuts))


def _too_small(projected: Projection, budget: int, axes: Sequence[AxisPlan], *, asked: bool) -> str:
    tile = " x ".join(str(a.tile) for a in axes)
    return (
        f"the memory of {bytes_text(budget)} does not suffice for tiles of {tile}: they take "
        f"{bytes_text(projected.total)} ({_parts(projected)}); give at least {projected.total} bytes with --memory"
        + (", or smaller tiles" if asked else "")
    )


def _parts(p: Projection) -> str:
    parts = {"the process": p.process, "the network": p.network, "arrays": p.arrays, "whole image": p.whole}
    text = ", ".join(f"{what} {bytes_text(n)}" for what, n in parts.items() if n)
    return text + (f", in each of {p.workers} processes" if p.workers > 1 else "")
