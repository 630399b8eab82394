"""Cut axes into tiles: one tile, given sizes, blended tiles, or those with the least computation within the memory.

Larger tiles recompute fewer halo voxels but need more memory; with only a few tiles, reading the first and writing the
last do not overlap with computing.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text, size_option
from im2im_zoo.runtime.layout.image_layout import AxisMap
from im2im_zoo.runtime.layout.tiling import Grid, candidates, spans, split_axis
from im2im_zoo.runtime.plan.memory import Projection
from im2im_zoo.runtime.plan.memory_model import MemoryModel
from im2im_zoo.runtime.plan.plan import AxisPlan

# Blended tiles overlap by a quarter of their size at each end.
_BLENDED_PART = 4


def _grid(axis: AxisMap, halo: int) -> Grid:
    if axis.grid is None:
        raise PlanError(f"the axis {axis.name} is not an axis of the network; only its axes can be cut")
    if axis.grid.fixed and axis.network is not None:
        scales = [p.scale.denominator for p in (*axis.network.inputs, *axis.network.outputs) if p is not None]
        return Grid.of_fixed_size(axis.grid.minimum, max(halo, axis.crop), math.lcm(*scales))
    return axis.grid


def one_tile(maps: Sequence[AxisMap], halos: Mapping[str, int]) -> tuple[AxisPlan, ...]:
    """Plan one tile for each whole axis.

    Raises:
        PlanError: the image is larger than the only size that the network takes.
    """
    axes = []
    for m in maps:
        grid = _grid(m, halos[m.name])
        size = grid.at_least(m.size + 2 * m.crop)
        if grid.fixed and size > grid.minimum:
            raise PlanError(
                f"the network takes only {grid.minimum} voxels along {m.name}, so the {m.size} of the image cannot be run as a "
                "whole; use tiles"
            )
        axes.append(axis_plan(m, halos[m.name], size, max(size, m.size)))
    return tuple(axes)


def given_tile(
    maps: Sequence[AxisMap], halos: Mapping[str, int], tile: Mapping[str, int]
) -> tuple[AxisPlan, ...]:
    """Plan tiles of given sizes; an axis that is not named is not cut.

    Args:
        maps: axes of the network.
        halos: voxels by axis.
        tile: voxels by axis, halo included.

    Raises:
        PlanError: an axis that cannot be cut, or a size that the network does not take or that the halo uses up.
    """
    cut_axes = [m.name for m in maps if m.role == "tile"]
    unknown = sorted(set(tile) - set(cut_axes))
    if unknown:
        raise PlanError(f"tile: cannot cut along {', '.join(unknown)}; use {', '.join(cut_axes)}")
    axes: list[AxisPlan] = []
    for m in maps:
        grid = _grid(m, halos[m.name])
        if m.role != "tile":
            axes += one_tile([m], halos)
            continue
        size = grid.minimum if grid.fixed else grid.at_least(m.size + 2 * m.crop)
        size = min(size, tile.get(m.name, size))
        try:
            cut = split_axis(m.size, size, halos[m.name], grid, m.crop)
        except PlanError as error:
            raise PlanError(f"tile along {m.name}: {error}") from error
        axes.append(axis_plan(m, halos[m.name], size, cut[0].inner.stop if len(cut) > 1 else m.size))
    return tuple(axes)


def blended_tiles(
    maps: Sequence[AxisMap], tile: Mapping[str, int] | None, memory_model: MemoryModel
) -> tuple[AxisPlan, ...]:
    """Plan the largest tiles within the memory, overlapping by half where they are cut; one tile if possible."""
    none = {m.name: 0 for m in maps}
    if tile is None:
        largest = best_tile(maps, none, memory_model)
        if all(len(a.spans) == 1 for a in largest):
            return largest
        tile = {a.name: a.tile for a, m in zip(largest, maps, strict=True) if m.role == "tile"}
    halos = none | {name: size // _BLENDED_PART for name, size in tile.items() if name in none}
    return given_tile(maps, halos, tile)


def best_tile(
    maps: Sequence[AxisMap], halos: Mapping[str, int], memory_model: MemoryModel
) -> tuple[AxisPlan, ...]:
    """Plan one tile if the memory allows; else the fastest tiles within it; of equally fast ones, the fewest.

    The time is that of all computed voxels plus half a tile: the first tile's memory has to be cleared, and reading it and
    writing the last tile overlap with nothing (measured: a sixth to a whole of a tile's time).

    Raises:
        PlanError: the memory is not enough for the smallest tile.
    """
    options = [_options(m, halos[m.name]) for m in maps]
    room = _largest_tile_voxels(memory_model)
    best: tuple[tuple[int, int], tuple[tuple[int, int, int], ...]] | None = None
    smallest = math.prod(min(t for t, _, _ in o) for o in options)
    for chosen in itertools.product(*_thin_out(options)):
        voxels = math.prod(t for t, _, _ in chosen)
        if voxels > room:
            continue
        count = math.prod(n for _, n, _ in chosen)
        key = (voxels * (2 * count + 1) * (count > 1), count)
        if best is None or key < best[0]:
            best = (key, chosen)
    if best is None:
        projected = memory_model.projection_of(smallest)
        raise PlanError(
            f"{bytes_text(memory_model.budget)} of memory is not enough for the smallest tile, {smallest} voxels, which needs "
            f"{bytes_text(projected.total)} ({parts_text(projected)}); pass --memory {size_option(projected.total)} or more"
        )
    return tuple(axis_plan(m, halos[m.name], t, c) for m, (t, _, c) in zip(maps, best[1], strict=True))


def _options(m: AxisMap, halo: int) -> list[tuple[int, int, int]]:
    """Return (tile, count, cut) for all ways to cut an axis that are worth considering."""
    grid = _grid(m, halo)
    if m.role != "tile":
        (axis,) = one_tile([m], {m.name: halo})
        return [(axis.tile, 1, axis.cut)]
    found = [(t, -(-m.size // c), c) for c, t in candidates(m.size, halo, grid, m.crop)]
    if not found:
        least = 2 * max(halo, m.crop) + grid.step
        raise PlanError(
            f"the network takes only {grid.minimum} voxels along {m.name}, and a halo of {halo} leaves "
            f"nothing of them (it needs {least} or more); pass a smaller --halo"
        )
    return found


def _thin_out(
    options: list[list[tuple[int, int, int]]], most: int = 200_000
) -> list[list[tuple[int, int, int]]]:
    """Keep every k-th option and the extremes if there are too many combinations to compare."""
    cut = sum(1 for o in options if len(o) > 1)
    limit = max(2, int(most ** (1 / max(1, cut))))
    return [
        o if len(o) <= limit else [o[round(i * (len(o) - 1) / (limit - 1))] for i in range(limit)]
        for o in options
    ]


def _largest_tile_voxels(memory_model: MemoryModel) -> int:
    """Return the most voxels of a tile within the budget, by bisection of the projection."""
    low, high = 0, 1
    while memory_model.projection_of(high).total <= memory_model.budget and high < 2**60:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high)
            if memory_model.projection_of(middle).total <= memory_model.budget
            else (low, middle)
        )
    return low


def axis_plan(m: AxisMap, halo: int, tile: int, cut: int) -> AxisPlan:
    """Cut an axis into tiles of `tile` voxels, halo included, of which `cut` are kept."""
    grid = _grid(m, halo)
    cuts = spans(m.size, cut, tile, halo, grid, m.crop)
    return AxisPlan(m.name, m.size, grid.at_least(m.size + 2 * m.crop), tile, cut, halo, tuple(cuts))


def parts_text(p: Projection) -> str:
    """List the parts of a projection with their sizes, for a message."""
    parts = {"the process": p.process, "the network": p.network, "arrays": p.arrays, "whole image": p.whole}
    text = ", ".join(f"{what} {bytes_text(n)}" for what, n in parts.items() if n)
    return text + (f", in each of {p.workers} processes" if p.workers > 1 else "")
