import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from im2im_zoo.data.patches.placement import (
    list_grid_corners,
    sample_patch,
    sample_unpaired_patch,
    shuffle_epoch,
)

SIZES = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=3).map(
    lambda axes: ([max(size, patch) for size, patch in axes], [patch for _, patch in axes])
)


@settings(deadline=None)  # a loop over up to 60 000 patches, on a machine that may be busy
@given(SIZES)
def test_a_grid_covers_every_voxel_with_patches_inside_the_image(axes: tuple[list[int], list[int]]) -> None:
    sizes, patch = axes
    seen = np.zeros(sizes, int)
    for corner in list_grid_corners(sizes, patch):
        region = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        assert all(0 <= c <= s - p for c, s, p in zip(corner, sizes, patch, strict=True))
        seen[region] += 1
    assert seen.min() == 1
    assert len(list_grid_corners(sizes, patch)) == np.prod(
        [-(-s // p) for s, p in zip(sizes, patch, strict=True)]
    )


def test_only_the_last_patch_of_an_axis_is_shifted_inward() -> None:
    assert list_grid_corners((10,), (4,)) == [(0,), (4,), (6,)]
    assert list_grid_corners((8, 4), (4, 4)) == [(0, 0), (4, 0)]


@given(SIZES, st.integers(0, 2**31), st.integers(0, 1000), st.integers(0, 10**6))
def test_a_random_patch_lies_inside_the_image(
    axes: tuple[list[int], list[int]], seed: int, epoch: int, index: int
) -> None:
    sizes, patch = axes
    draw = sample_patch(sizes, patch, seed, epoch, index)
    assert all(0 <= c <= s - p for c, s, p in zip(draw.corner, sizes, patch, strict=True))
    assert 0 <= draw.seed < 2**32
    assert 0 <= draw.device_seed < 2**32
    assert draw.seed != draw.device_seed
    assert draw == sample_patch(sizes, patch, seed, epoch, index)


def test_random_patches_reach_every_corner_alike_often() -> None:
    corners = [sample_patch((12,), (8,), 0, 0, i).corner[0] for i in range(5000)]
    counts = np.bincount(corners, minlength=5)
    assert len(counts) == 5
    assert counts.min() > 900


def test_seed_epoch_and_index_each_change_the_patch_and_its_seed() -> None:
    draws = [
        sample_patch((1000, 1000), (8, 8), *arguments)
        for arguments in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))
    ]
    assert len({d.corner for d in draws}) == 4
    assert len({d.seed for d in draws}) == 4


def test_the_order_of_an_epoch_is_a_permutation_of_its_own() -> None:
    orders = [tuple(shuffle_epoch(100, *arguments)) for arguments in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len(set(orders)) == 3
    assert tuple(shuffle_epoch(100, 0, 1)) == orders[1]


def test_a_lone_patch_is_of_each_image_alike_often_and_inside_it() -> None:
    images = [(20, 30), (8, 8), (50, 9)]
    drawn = [sample_unpaired_patch(images, (8, 8), 0, 0, 0, i) for i in range(3000)]
    assert min(np.bincount([number for number, _ in drawn])) > 900
    for number, draw in drawn:
        assert all(0 <= c <= s - 8 for c, s in zip(draw.corner, images[number], strict=True))


def test_streams_of_lone_patches_are_independent() -> None:
    images = [(1000, 1000)] * 1000
    one, same, other = (
        [sample_unpaired_patch(images, (8, 8), stream, 0, 0, i) for i in range(200)] for stream in (0, 0, 1)
    )
    assert one == same
    assert abs(np.corrcoef([n for n, _ in one], [n for n, _ in other])[0, 1]) < 0.25
    assert not set(one) & set(other)
