"""Tile geometry along one axis, in whole-image voxels. Integers only: no arrays, no axes' names, no torch.

What is computed: the image is thought to be padded once, at its far end, to the smallest size of the network's
grid (`Grid`) that holds it. Running the network once over that padded image is the *whole-image result*, and
tiles have to give the same. They do, if the halo is at least the network's receptive field, because

1. every tile starts at a multiple of the grid's step, so strided layers (pooling) have the same phase in the
   tile as in the whole image;
2. a kept voxel is at least the halo away from each end of its tile, except where the tile ends where the
   padded image ends; there the network pads by itself, and it does so at the same place as in the whole image;
3. so no tile is padded beyond the padded image: a tile at a border is moved inwards instead, and reads more
   on its inner side. Its size stays on the grid; all tiles of an axis have one size.

     padded image   |-----------------------------------------------------------|
     tile 0         |=========keeps=========|...|
     tile 1                            |....|=======keeps=======|....|
     tile 2 (last, moved inwards)               |...............|==keeps==|pad~~|

What is kept are the cells of a regular grid of `cut` voxels, so that an output with chunks that divide `cut`
is written chunk by chunk, by any number of processes in any order.

A network that crops its output (convolutions without padding) gives nothing of the outermost `crop` voxels of what it
computes. The image is then thought to be mirrored by `crop` at both its ends first, so that the output covers the image,
as Ronneberger et al. (2015, arXiv:1505.04597, fig. 2) do; the tiles' positions are counted from there, and what is said
above of the padded image holds of this one. Positions in `Span` are those of the image: a tile may begin below 0.

A network of one fixed size is a grid of which tiles use the first size only. Its step is not known; it is
taken to be the largest power of two, up to 32, that divides the size and leaves something to keep between the
halos, as networks pool by powers of two.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from im2im_zoo.core.errors import PlanError

_LARGEST_ASSUMED_STEP = 32


@dataclass(frozen=True, slots=True)
class Grid:
    """The sizes that a network takes along an axis: `minimum + n * step`; if `fixed`, the minimum alone."""

    minimum: int
    step: int
    fixed: bool = False

    @classmethod
    def of_fixed_size(cls, size: int, halo: int = 0, least_step: int = 1) -> "Grid":
        """The grid of a network that takes one size only."""
        step = min(size & -size, _LARGEST_ASSUMED_STEP)
        while step % (2 * least_step) == 0 and size - halo - -(-halo // step) * step < step:
            step //= 2
        return cls(size, step, fixed=True)

    def at_least(self, size: int) -> int:
        """The smallest size of the grid that is `size` or more."""
        return self.minimum + max(0, -(-(size - self.minimum) // self.step)) * self.step

    def at_most(self, size: int) -> int:
        """The largest size of the grid that is `size` or less, or the minimum."""
        return self.minimum + max(0, (size - self.minimum) // self.step) * self.step

    def __contains__(self, size: int) -> bool:
        return size >= self.minimum and self.at_least(size) == size


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis.

    Attributes:
        inner: what is kept and written, in voxels of the image.
        outer: what the network computes, in voxels of the image; beyond its ends, the image is padded.
    """

    inner: slice
    outer: slice


def split_axis(size: int, tile: int, halo: int, grid: Grid, crop: int = 0) -> list[Span]:
    """Cut one axis so that every voxel is kept exactly once.

    Args:
        size: voxels of the image.
        tile: voxels of a tile; it includes the halo, and is a size of the grid.
        halo: voxels at an end of a tile that are not kept, unless the image ends there.
        grid: the sizes that the network takes.
        crop: voxels at both ends of a tile that the network gives no output for.

    Raises:
        PlanError: the tile is not on the grid, or leaves nothing to keep.
    """
    tile = min(tile, grid.at_least(size + 2 * crop))
    if tile not in grid or (grid.fixed and tile != grid.minimum):
        raise PlanError(f"a tile of {tile} is not a size that the network takes: {_near(tile, grid)}")
    return spans(size, _largest_cut(size, tile, halo, grid, crop), tile, halo, grid, crop)


def spans(size: int, cut: int, tile: int, halo: int, grid: Grid, crop: int = 0) -> list[Span]:
    """The tiles that keep `cut` voxels each; `tile` is at least `tile_needed(size, cut, halo, grid, crop)`."""
    padded = grid.at_least(size + 2 * crop)
    result = []
    for start in range(0, size, cut):
        begin = min(_begin(start, halo, grid, crop), padded - tile) - crop
        result.append(Span(slice(start, min(start + cut, size)), slice(begin, begin + tile)))
    return result


def tile_needed(size: int, cut: int, halo: int, grid: Grid, crop: int = 0) -> int:
    """The smallest tile, on the grid, with which `cut` voxels can be kept of each."""
    padded = grid.at_least(size + 2 * crop)
    margin = max(halo, crop)
    # The largest is the first that begins within the image, or the one before if that ends at its end.
    first = -(-(margin - crop) // cut) * cut
    last = (size - 1) // cut * cut
    some = {min(max(first - cut, 0), last), min(first, last)}
    ends = ((_begin(s, halo, grid, crop), min(padded, s + cut + crop + margin)) for s in some)
    return grid.at_least(max(end - begin for begin, end in ends))


def candidates(size: int, halo: int, grid: Grid, crop: int = 0) -> Iterator[tuple[int, int]]:
    """All (cut, tile) worth considering, from one tile to the most, each cut as even as the step allows."""
    previous = 0
    cuts = -(-size // grid.step)
    count = 1
    while count <= cuts:
        units = -(-cuts // count)
        cut = units * grid.step
        tile = tile_needed(size, cut, halo, grid, crop)
        if grid.fixed:
            if tile == grid.minimum:
                yield cut, tile
                return
        elif tile != previous:
            yield cut, tile
            previous = tile
        if units == 1:
            return
        # The next count that makes the cut smaller.
        count = -(-cuts // (units - 1))


def _begin(start: int, halo: int, grid: Grid, crop: int) -> int:
    """Where a tile begins, counted from `crop` voxels before the image."""
    return max(0, start + crop - max(halo, crop)) // grid.step * grid.step


def _largest_cut(size: int, tile: int, halo: int, grid: Grid, crop: int) -> int:
    cuts = -(-size // grid.step)
    count = 1
    while True:
        units = -(-cuts // count)
        if tile_needed(size, units * grid.step, halo, grid, crop) <= tile:
            return units * grid.step
        if units == 1:
            least = tile_needed(size, grid.step, halo, grid, crop)
            raise PlanError(
                f"a tile of {tile} leaves nothing to keep with a halo of {halo} at both ends: use at least {least}"
            )
        count = -(-cuts // (units - 1))


def _near(tile: int, grid: Grid) -> str:
    if grid.fixed:
        return f"it takes {grid.minimum} only"
    if tile < grid.minimum:
        return f"it takes {grid.minimum} + n * {grid.step}"
    low, high = grid.at_most(tile), grid.at_least(tile)
    return f"it takes {grid.minimum} + n * {grid.step}; the nearest are {low} and {high}"
