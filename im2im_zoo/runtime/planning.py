"""Make the plan of a prediction: the axes, the halo, and the tiles that fit the memory. Reads no voxel.

Tiles are chosen to compute the fewest voxels, the image's and those computed twice in halos, within the
projected memory: larger tiles compute less and take more.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from im2im_zoo.errors import PlanError
from im2im_zoo.runtime.mapping import AxisMap, map_axes, output_axes
from im2im_zoo.runtime.memory import Cost, Projection, bytes_text, default_budget, project
from im2im_zoo.runtime.plan import AxisPlan, HaloSource, Plan
from im2im_zoo.runtime.tiling import Grid, candidates, spans, split_axis

if TYPE_CHECKING:
    from im2im_zoo.package import Package

Halo = int | Mapping[str, int] | Literal["declared", "exact"]


def plan_prediction(
    package: "Package",
    image: xr.DataArray,
    *,
    memory: int | None = None,
    tile: Mapping[str, int] | None = None,
    halo: Halo = "declared",
    halo_source: HaloSource | None = None,
    weights: str | None = None,
    cost: Cost | None = None,
    dtype: str | None = None,
    whole: bool = False,
) -> Plan:
    """Plan the prediction of a package on an image.

    Args:
        package: the model.
        image: lazy; its sizes, axes and dtype are looked at, its voxels are not.
        memory: bytes that the process may take (default: half of what is available).
        tile: voxels of a tile by axis, halo included (default: those that compute the least within `memory`).
        halo: voxels of the input at each end of a tile that are not kept; for all axes, by axis, or as the RDF says.
            "exact" is the receptive field that our export measured: tiles then equal the whole.
        halo_source: what the plan says of it (default: `declared` or `given`).
        weights: the format (default: the first of `package.weights`).
        cost: what the network takes (default: a guess).
        dtype: of the output image (default: that of the RDF).
        whole: one tile for each sample, whatever it takes.

    Raises:
        PlanError: an image that the model does not take, or a budget that is too small; the message says
            what is the least.
    """
    maps = map_axes(package, image)
    source, target = package.inputs[0], package.outputs[0]
    chosen = _weights(package, weights)
    halos, said, warnings = _halos(maps, _receptive_field(package) if halo == "exact" else halo)
    said = "measured" if halo == "exact" else said
    cost = cost or Cost.guess(package.path(package.weights_entry(chosen)).stat().st_size)
    budget = default_budget() if memory is None else memory
    fit = _Fit.of(package, maps, image, cost, budget)
    if whole:
        axes = _one_tile(maps, halos)
    elif tile is not None:
        axes = _given_tile(maps, halos, tile)
    else:
        axes = _best_tile(maps, halos, fit)
    projected = fit.projection(axes)
    if projected.total > budget and not whole:
        raise PlanError(_too_small(projected, budget, axes, asked=tile is not None))
    names = output_axes(maps)
    lengths = {m.name: m.size if m.role == "loop" else m.out_size for m in maps if m.in_output}
    if any(len(a.spans) > 1 for a in axes):
        warnings += _no_halo(axes, said)
    return Plan(
        model=package.name,
        version=package.version,
        weights_format=chosen,
        maps=maps,
        axes=axes,
        input_axes=tuple(str(a.id) for a in source.axes),
        output_axes=tuple(str(a.id) for a in target.axes),
        image_axes=names,
        image_shape=tuple(lengths[a] for a in names),
        dtype=str(np.dtype(dtype or str(target.dtype))),
        channel_names=_channel_names(target, maps, image),
        halo_source=halo_source or said,
        whole_before=fit.whole_before,
        whole_after=fit.whole_after,
        memory=projected,
        budget=budget,
        cost=cost,
        warnings=tuple(warnings),
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """What a tiling takes of the memory, apart from the tiling itself."""

    cost: Cost
    budget: int
    in_channels: int
    out_channels: int
    out_scale: float
    in_itemsize: int
    whole_before: bool
    whole_after: bool
    whole_bytes: int

    @classmethod
    def of(
        cls, package: "Package", maps: Sequence[AxisMap], image: xr.DataArray, cost: Cost, budget: int
    ) -> "_Fit":
        from im2im_zoo.processing import needs_statistics

        tiled = [m for m in maps if m.role == "tile"]
        channel = next((m for m in maps if m.role == "channel"), None)
        c_in, c_out = (channel.size, channel.out_size) if channel else (1, 1)
        before = list(package.inputs[0].preprocessing)
        after = list(package.outputs[0].postprocessing)
        whole_before, custom_after = _mixes_voxels(before), _mixes_voxels(after)
        # An operation on the whole: the array, its result, and as much for what it does within.
        whole = 4 * math.prod(m.size for m in tiled) * c_in * 4 if whole_before else 0
        whole += 4 * math.prod(m.out_size for m in tiled) * c_out * 4 if custom_after else 0
        return cls(
            cost,
            budget,
            c_in,
            c_out,
            float(math.prod(m.scale for m in tiled)),
            image.dtype.itemsize,
            whole_before,
            custom_after or needs_statistics(after),
            whole,
        )

    def projection(self, axes: Sequence[AxisPlan]) -> Projection:
        return self.projection_of(math.prod(a.tile for a in axes))

    def projection_of(self, tile_voxels: int) -> Projection:
        return project(
            self.cost,
            tile_voxels=tile_voxels,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
            out_scale=self.out_scale,
            in_itemsize=self.in_itemsize,
            whole_bytes=self.whole_bytes,
        )


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


def _receptive_field(package: "Package") -> Mapping[str, int]:
    """The reach of an output voxel by axis, as it was measured when the package was made."""
    ours = (package.raw.get("config") or {}).get("im2im_zoo") or {}
    reach = ours.get("receptive_field")
    if reach == "global":
        raise PlanError(
            f"{package.name}: each output voxel depends on the whole image (a norm or attention over all of it), so no "
            "halo makes tiles exact; use --halo declared, or a budget that takes the image whole"
        )
    if not isinstance(reach, Mapping) or not all(isinstance(v, int) and v >= 0 for v in reach.values()):
        raise PlanError(
            f"{package.name} does not say its receptive field (config.im2im_zoo.receptive_field); give --halo as a "
            "number of voxels, or use --halo declared"
        )
    return {str(axis): int(v) for axis, v in reach.items()}


def _halos(maps: Sequence[AxisMap], halo: Halo) -> tuple[dict[str, int], HaloSource, list[str]]:
    tiled = [m for m in maps if m.role == "tile"]
    if halo == "declared":
        declared = any(m.declared_halo is not None for m in tiled)
        return {m.name: m.declared_halo or 0 for m in tiled}, "declared" if declared else "none", []
    if isinstance(halo, str):
        raise PlanError(f"halo {halo!r}: use a number of voxels, 'declared' or 'exact'")
    given = {m.name: halo for m in tiled} if isinstance(halo, int) else dict(halo)
    unknown = sorted(set(given) - {m.name for m in tiled})
    if unknown or any(h < 0 for h in given.values()):
        raise PlanError(
            f"halo {given}: give a number of voxels, 0 or more, for axes of {', '.join(m.name for m in tiled)}"
        )
    return {m.name: given.get(m.name, m.declared_halo or 0) for m in tiled}, "given", []


def _no_halo(axes: Sequence[AxisPlan], source: HaloSource) -> list[str]:
    cut = [a.name for a in axes if len(a.spans) > 1 and not a.halo]
    if not cut:
        return []
    why = "the RDF declares none" if source == "none" else "it is 0"
    return [f"no halo along {', '.join(cut)} ({why}): the result will have seams there; give one with --halo"]


def _grid(axis: AxisMap, halo: int) -> Grid:
    if axis.grid is None:
        raise PlanError(f"the axis {axis.name} has no sizes")
    if axis.grid.fixed:
        return Grid.of_fixed_size(axis.grid.minimum, halo, axis.scale.denominator)
    return axis.grid


def _one_tile(maps: Sequence[AxisMap], halos: Mapping[str, int]) -> tuple[AxisPlan, ...]:
    axes = []
    for m in maps:
        if m.role != "tile":
            continue
        grid = _grid(m, halos[m.name])
        size = grid.at_least(m.size)
        if grid.fixed and size > grid.minimum:
            raise PlanError(
                f"the network takes {grid.minimum} voxels along {m.name} only, so {m.size} cannot be run as a whole; use tiles"
            )
        axes.append(_axis_plan(m, halos[m.name], size, size))
    return tuple(axes)


def _given_tile(
    maps: Sequence[AxisMap], halos: Mapping[str, int], tile: Mapping[str, int]
) -> tuple[AxisPlan, ...]:
    tiled = [m for m in maps if m.role == "tile"]
    unknown = sorted(set(tile) - {m.name for m in tiled})
    if unknown:
        raise PlanError(
            f"tile: {', '.join(unknown)} is no axis that is cut; these are {', '.join(m.name for m in tiled)}"
        )
    axes = []
    for m in tiled:
        grid = _grid(m, halos[m.name])
        size = grid.minimum if grid.fixed else grid.at_least(m.size)
        size = min(size, tile.get(m.name, size))
        try:
            cut = split_axis(m.size, size, halos[m.name], grid)
        except PlanError as error:
            raise PlanError(f"tile along {m.name}: {error}") from error
        axes.append(
            AxisPlan(
                m.name, m.size, grid.at_least(m.size), size, cut[0].inner.stop, halos[m.name], tuple(cut)
            )
        )
    return tuple(axes)


def _best_tile(maps: Sequence[AxisMap], halos: Mapping[str, int], fit: _Fit) -> tuple[AxisPlan, ...]:
    """The tiles that compute the fewest voxels of those that fit; of equals, the fewest tiles."""
    tiled = [m for m in maps if m.role == "tile"]
    options = []
    for m in tiled:
        found = list(candidates(m.size, halos[m.name], _grid(m, halos[m.name])))
        if not found:
            grid = _grid(m, halos[m.name])
            least = 2 * halos[m.name] + grid.step
            raise PlanError(
                f"the network takes {grid.minimum} voxels along {m.name} only, which a halo of {halos[m.name]} leaves "
                f"nothing of (it takes {least} or more); give a smaller one with --halo"
            )
        options.append([(t, -(-m.size // c), c) for c, t in found])
    room = _largest_tile_voxels(fit)
    best: tuple[tuple[int, int], tuple[tuple[int, int, int], ...]] | None = None
    smallest = math.prod(min(t for t, _, _ in o) for o in options)
    for chosen in itertools.product(*_thinned(options)):
        voxels = math.prod(t for t, _, _ in chosen)
        if voxels > room:
            continue
        count = math.prod(n for _, n, _ in chosen)
        key = (voxels * count, count)
        if best is None or key < best[0]:
            best = (key, chosen)
    if best is None:
        projected = fit.projection_of(smallest)
        raise PlanError(
            f"the memory of {bytes_text(fit.budget)} does not suffice: the smallest tile, {smallest} voxels, takes "
            f"{bytes_text(projected.total)} ({_parts(projected)}); give at least {projected.total} bytes with --memory"
        )
    return tuple(_axis_plan(m, halos[m.name], t, c) for m, (t, _, c) in zip(tiled, best[1], strict=True))


def _thinned(
    options: list[list[tuple[int, int, int]]], most: int = 200_000
) -> list[list[tuple[int, int, int]]]:
    """Fewer options where their combinations are too many to look at: every k-th, the extremes always."""
    limit = max(2, int(most ** (1 / max(1, len(options)))))
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
    cuts = spans(m.size, cut, tile, halo, grid)
    return AxisPlan(m.name, m.size, grid.at_least(m.size), tile, cut, halo, tuple(cuts))


def _too_small(projected: Projection, budget: int, axes: Sequence[AxisPlan], *, asked: bool) -> str:
    tile = " x ".join(str(a.tile) for a in axes)
    return (
        f"the memory of {bytes_text(budget)} does not suffice for tiles of {tile}: they take "
        f"{bytes_text(projected.total)} ({_parts(projected)}); give at least {projected.total} bytes with --memory"
        + (", or smaller tiles" if asked else "")
    )


def _parts(p: Projection) -> str:
    parts = {"the process": p.process, "the network": p.network, "arrays": p.arrays, "whole image": p.whole}
    return ", ".join(f"{what} {bytes_text(n)}" for what, n in parts.items() if n)


def _channel_names(target: Any, maps: Sequence[AxisMap], image: xr.DataArray) -> tuple[str, ...] | None:
    looped = next((m for m in maps if m.role == "loop" and m.name == "channel"), None)
    if looped is not None:
        names = image.coords["channel"].values if "channel" in image.coords else None
        return None if names is None else tuple(str(n) for n in names)
    kept = any(m.name == "channel" and m.in_output for m in maps)
    axis = next((a for a in target.axes if a.type == "channel"), None)
    return tuple(str(n) for n in axis.channel_names) if kept and axis is not None else None
