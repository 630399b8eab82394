"""How axes are cut into tiles: as one, as they are given, blended, or the tiles that compute the least within the memory.

Larger tiles compute less twice and take more, and the first and last of a few large ones keep the rest waiting.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

from im2im_zoo.core.errors import PlanError
from im2im_zoo.core.sizes import bytes_text
from im2im_zoo.runtime.layout.image_layout import AxisMap
from im2im_zoo.runtime.layout.tiling import Grid, candidates, spans, split_axis
from im2im_zoo.runtime.plan.memory import Projection
from im2im_zoo.runtime.plan.memory_model import Fit
from im2im_zoo.runtime.plan.plan import AxisPlan

# Where nothing makes tiles exact, they overlap by a quarter of their size at each end.
_BLENDED_PART = 4


def _grid(axis: AxisMap, halo: int) -> Grid:
    if axis.grid is None:
        raise PlanError(f"the axis {axis.name} has no sizes")
    if axis.grid.fixed and axis.network is not None:
        scales = [p.scale.denominator for p in (*axis.network.inputs, *axis.network.outputs) if p is not None]
        return Grid.of_fixed_size(axis.grid.minimum, max(halo, axis.crop), math.lcm(*scales))
    return axis.grid


def one_tile(maps: Sequence[AxisMap], halos: Mapping[str, int]) -> tuple[AxisPlan, ...]:
    """All of each axis in one tile.

    Raises:
        PlanError: a network of one size, for which the image is too large.
    """
    axes = []
    for m in maps:
        grid = _grid(m, halos[m.name])
        size = grid.at_least(m.size + 2 * m.crop)
        if grid.fixed and size > grid.minimum:
            raise PlanError(
                f"the network takes {grid.minimum} voxels along {m.name} only, so {m.size} cannot be run as a whole; use tiles"
            )
        axes.append(axis_plan(m, halos[m.name], size, max(size, m.size)))
    return tuple(axes)


def given_tile(
    maps: Sequence[AxisMap], halos: Mapping[str, int], tile: Mapping[str, int]
) -> tuple[AxisPlan, ...]:
    """Tiles of these sizes, by axis; an axis that is not named is not cut.

    Raises:
        PlanError: an axis that is not cut, or a size that the network does not take, or of which the halo leaves nothing.
    """
    cut_axes = [m.name for m in maps if m.role == "tile"]
    unknown = sorted(set(tile) - set(cut_axes))
    if unknown:
        raise PlanError(f"tile: {', '.join(unknown)} is no axis that is cut; these are {', '.join(cut_axes)}")
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


def blended_tiles(maps: Sequence[AxisMap], tile: Mapping[str, int] | None, fit: Fit) -> tuple[AxisPlan, ...]:
    """The largest tiles that fit, that overlap by half where they are cut; one tile if the image fits."""
    none = {m.name: 0 for m in maps}
    if tile is None:
        largest = best_tile(maps, none, fit)
        if all(len(a.spans) == 1 for a in largest):
            return largest
        tile = {a.name: a.tile for a, m in zip(largest, maps, strict=True) if m.role == "tile"}
    halos = none | {name: size // _BLENDED_PART for name, size in tile.items() if name in none}
    return given_tile(maps, halos, tile)


def best_tile(maps: Sequence[AxisMap], halos: Mapping[str, int], fit: Fit) -> tuple[AxisPlan, ...]:
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
            f"{bytes_text(projected.total)} ({parts_text(projected)}); give at least {projected.total} bytes with --memory"
        )
    return tuple(axis_plan(m, halos[m.name], t, c) for m, (t, _, c) in zip(maps, best[1], strict=True))


def _options(m: AxisMap, halo: int) -> list[tuple[int, int, int]]:
    """(tile, how many, cut) of all ways to cut an axis that are worth considering."""
    grid = _grid(m, halo)
    if m.role != "tile":
        (axis,) = one_tile([m], {m.name: halo})
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


def _largest_tile_voxels(fit: Fit) -> int:
    """How many voxels a tile may have within the budget, by bisection of the projection."""
    low, high = 0, 1
    while fit.projection_of(high).total <= fit.budget and high < 2**60:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit.projection_of(middle).total <= fit.budget else (low, middle)
    return low


def axis_plan(m: AxisMap, halo: int, tile: int, cut: int) -> AxisPlan:
    """An axis in tiles of `tile` voxels, halo included, of which `cut` are kept."""
    grid = _grid(m, halo)
    cuts = spans(m.size, cut, tile, halo, grid, m.crop)
    return AxisPlan(m.name, m.size, grid.at_least(m.size + 2 * m.crop), tile, cut, halo, tuple(cuts))


def parts_text(p: Projection) -> str:
    """What takes how much of the memory, for a message."""
    parts = {"the process": p.process, "the network": p.network, "arrays": p.arrays, "whole image": p.whole}
    text = ", ".join(f"{what} {bytes_text(n)}" for what, n in parts.items() if n)
    return text + (f", in each of {p.workers} processes" if p.workers > 1 else "")
