"""Tile geometry: integers only."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from im2im_zoo.core.errors import PlanError
from im2im_zoo.runtime.execute.samples import padded_positions
from im2im_zoo.runtime.layout.tiling import Grid, candidates, spans, split_axis, tile_needed

grids = st.builds(Grid, st.integers(1, 40), st.sampled_from([1, 2, 3, 4, 8, 16]))
sizes = st.integers(1, 400)


@given(sizes, st.integers(0, 20), grids, st.integers(0, 12), st.integers(0, 10))
def test_every_voxel_is_kept_once_by_a_tile_that_is_exact_there(size, halo, grid, crop, pick):
    options = list(candidates(size, halo, grid, crop))
    cut, tile = options[pick % len(options)]
    assert tile == tile_needed(size, cut, halo, grid, crop)
    # The image, mirrored where the network crops its output, and padded to the network's grid.
    first, last = -crop, grid.at_least(size + 2 * crop) - crop
    end = 0
    for span in spans(size, cut, tile, halo, grid, crop):
        assert span.inner.start == end
        assert span.inner.stop - end == min(cut, size - end)
        end = span.inner.stop
        assert span.outer.stop - span.outer.start == tile
        assert tile in grid
        # Pooling has the phase of the whole image.
        assert (span.outer.start - first) % grid.step == 0
        assert span.outer.start >= first
        assert span.outer.stop <= last
        # Far from the ends of the tile, but for those of the image; where it is cropped, everywhere.
        assert span.outer.start == first or span.inner.start - span.outer.start >= halo
        assert span.outer.stop == last or span.outer.stop - span.inner.stop >= halo
        assert span.inner.start - span.outer.start >= crop
        assert span.outer.stop - span.inner.stop >= crop
    assert end == size


@given(sizes, st.integers(0, 20), grids, st.integers(1, 12))
def test_a_given_tile_is_used_as_given_and_larger_ones_never_make_more_tiles(size, halo, grid, n):
    tile = grid.minimum + n * grid.step
    try:
        few = split_axis(size, tile + grid.step, halo, grid)
        many = split_axis(size, tile, halo, grid)
    except PlanError:
        assert tile < 2 * halo + 2 * grid.step
        return
    assert len(few) <= len(many)
    assert all(s.outer.stop - s.outer.start == min(tile, grid.at_least(size)) for s in many)


@given(
    sizes,
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from(["reflect", "symmetric", "edge"]),
)
def test_what_lies_beyond_the_ends_is_what_numpy_pads(size, before, after, mode):
    values = np.arange(size)
    expected = np.pad(values, (before, after), mode=mode if size > 1 else "edge")
    np.testing.assert_array_equal(
        values[padded_positions(slice(-before, size + after), size, mode)], expected
    )


@given(st.integers(1, 300), st.integers(0, 60), st.sampled_from([64, 96, 100, 128]))
def test_a_network_of_one_size_is_only_given_that_size_unless_the_image_is_smaller(size, halo, fixed):
    grid = Grid.of_fixed_size(fixed)
    options = list(candidates(size, halo, grid))
    assume(options)
    (cut, tile) = options[0]
    assert tile == fixed
    assert all(s.outer.stop - s.outer.start == fixed for s in spans(size, cut, tile, halo, grid))


def test_two_tiles_suffice_where_each_has_one_end_at_the_border():
    # 2 * (512 - 32) = 960: the halo counts once a tile, not twice.
    assert len(split_axis(960, 512, 32, Grid.of_fixed_size(512))) == 2
    assert len(split_axis(961, 512, 32, Grid.of_fixed_size(512))) == 3


def test_a_tile_off_the_grid_is_refused_with_the_nearest_sizes():
    with pytest.raises(PlanError, match=r"16 \+ n \* 8, such as 96 or 104"):
        split_axis(500, 100, 4, Grid(16, 8))


def test_a_tile_that_leaves_nothing_is_refused_with_the_least_that_does():
    grid = Grid(16, 8)
    with pytest.raises(PlanError, match="use at least 56") as error:
        split_axis(500, 48, 20, grid)
    least = int(str(error.value).split("at least ")[1].split(",")[0])
    assert split_axis(500, least, 20, grid)
