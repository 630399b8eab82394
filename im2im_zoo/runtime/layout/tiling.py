"""Tile geometry along one axis, in voxels of the whole image.

The image is padded once, at its far end, to the smallest size of the network's grid (`Grid`) that holds it. Running the
network once over this padded image gives the *whole-image result*. Tiles give the same result if the halo is at least the
network's receptive field, because

1. every tile starts at a multiple of the grid's step, so strided layers (pooling) have the same phase in the
   tile as in the whole image;
2. a kept voxel is at least the halo away from each end of its tile, except where the tile ends with the padded
   image; there the network pads by itself, at the same place as in the whole image;
3. no tile is padded beyond the padded image: a tile at a border is moved inwards instead, and reads more on its
   inner side. Its size stays on the grid; all tiles of an axis have one size.

     padded image   |-----------------------------------------------------------|
     tile 0         |=========keeps=========|...|
     tile 1                            |....|=======keeps=======|....|
     tile 2 (last, moved inwards)               |...............|==keeps==|pad~~|

The kept regions are cells of a regular grid of `cut` voxels, so that an output with chunks that divide `cut` is written
chunk by chunk, by any number of processes in any order.

A network that crops its output (convolutions without padding) gives no output for the outermost `crop` voxels of a tile.
The image is then first mirrored by `crop` at both ends, so that the output covers the image (Ronneberger et al. 2015,
arXiv:1505.04597, fig. 2), and the above holds for the mirrored image. Positions in `Span` are those of the image: a tile
may begin below 0.

A network of one fixed size is a grid of which tiles use only the first size. As its step is unknown, the largest power of
two up to 32 is used that divides the size and leaves voxels to keep between the halos.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from im2im_zoo.core.errors import PlanError

_LARGEST_ASSUMED_STEP = 32


@dataclass(frozen=True, slots=True)
class Grid:
    """The sizes that a network takes along an axis: `minimum + n * step`; if `fixed`, only the minimum."""

    minimum: int
    step: int
    fixed: bool = False

    @classmethod
    def of_fixed_size(cls, size: int, halo: int = 0, least_step: int = 1) -> "Grid":
        """Return the grid of a network that takes only one size.

        Args:
            size: the only size, in voxels.
            halo: voxels at each end; the step leaves voxels to keep between them.
            least_step: divisor of the step.
        """
        step = min(size & -size, _LARGEST_ASSUMED_STEP)
        while step % (2 * least_step) == 0 and size - halo - -(-halo // step) * step < step:
            step //= 2
        return cls(size, step, fixed=True)

    def at_least(self, size: int) -> int:
        """Return the smallest size of the grid that is `size` or more."""
        return self.minimum + max(0, -(-(size - self.minimum) // self.step)) * self.step

    def at_most(self, size: int) -> int:
        """Return the largest size of the grid that is `size` or less, or the minimum."""
        return self.minimum + max(0, (size - self.minimum) // self.step) * self.step

    def __contains__(self, size: int) -> bool:
        return size >= self.minimum and self.at_least(size) == size


@dataclass(frozen=True, slots=True)
class Span:
    """One tile along one axis.

    Attributes:
        inner: region that is kept and written, in voxels of the image.
        outer: region that the network computes, in voxels of the image; padded beyond its ends.
    """

    inner: slice
    outer: slice


def split_axis(size: int, tile: int, halo: int, grid: Grid, crop: int = 0) -> list[Span]:
    """Cut one axis so that every voxel is kept exactly once.

    Args:
        size: voxels of the image.
        tile: voxels of a tile, halo included; a size of the grid.
        halo: voxels at each end of a tile that are discarded, unless the image ends there.
        grid: the sizes that the network takes.
        crop: voxels at both ends of a tile that the network gives no output for.

    Raises:
        PlanError: the tile is not a size of the grid, or the halo leaves nothing of it.
    """
    tile = min(tile, grid.at_least(size + 2 * crop))
    if tile not in grid or (grid.fixed and tile != grid.minimum):
        raise PlanError(f"the network does not take a tile of {tile} voxels; {_near(tile, grid)}")
    return spans(size, _largest_cut(size, tile, halo, grid, crop), tile, halo, grid, crop)


def spans(size: int, cut: int, tile: int, halo: int, grid: Grid, crop: int = 0) -> list[Span]:
    """Return the tiles that keep `cut` voxels each; `tile` is at least `tile_needed(size, cut, halo, grid, crop)`."""
    padded = grid.at_least(size + 2 * crop)
    result = []
    for start in range(0, size, cut):
        begin = min(_begin(start, halo, grid, crop), padded - tile) - crop
        result.append(Span(slice(start, min(start + cut, size)), slice(begin, begin + tile)))
    return result


def tile_needed(size: int, cut: int, halo: int, grid: Grid, crop: int = 0) -> int:
    """Return the smallest tile size of the grid of which `cut` voxels can be kept."""
    padded = grid.at_least(size + 2 * crop)
    margin = max(halo, crop)
    # The largest is the first that begins within the image, or the one before if that ends at its end.
    first = -(-(margin - crop) // cut) * cut
    last = (size - 1) // cut * cut
    some = {min(max(first - cut, 0), last), min(first, last)}
    ends = ((_begin(s, halo, grid, crop), min(padded, s + cut + crop + margin)) for s in some)
    return grid.at_least(max(end - begin for begin, end in ends))


def candidates(size: int, halo: int, grid: Grid, crop: int = 0) -> Iterator[tuple[int, int]]:
    """Yield all (cut, tile) worth considering, from one tile to the most, with cuts as even as the step allows."""
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
    """Return the start of a tile, counted from `crop` voxels before the image."""
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
                f"a halo of {halo} at both ends leaves nothing of a tile of {tile}; use at least {least}, or a smaller halo"
            )
        count = -(-cuts // (units - 1))


def _near(tile: int, grid: Grid) -> str:
    if grid.fixed:
        return f"use {grid.minimum}, the only size"
    if tile < grid.minimum:
        return f"use {grid.minimum} + n * {grid.step}"
    low, high = grid.at_most(tile), grid.at_least(tile)
    return f"use {grid.minimum} + n * {grid.step}, such as {low} or {high}"
