"""EmbedSeg's grouping: objects that are known come back exactly, and nothing depends on chance or on boxes."""

import time

import numpy as np
import pytest
from metrics_for_tests import average_precision
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.instances.methods.embedseg import group


def discs(shape: tuple[int, ...], step: int, radius: float) -> NDArray[np.int32]:
    """Balls on a lattice, numbered in raster order; those at the border are cut by it."""
    grid = np.indices(shape)
    nearest = (grid + step // 2) // step
    numbers = np.ravel_multi_index(tuple(nearest), tuple(size // step + 2 for size in shape))
    inside = ((grid - nearest * step) ** 2).sum(0) <= radius**2
    labels = np.zeros(shape, np.int32)
    labels[inside] = 1 + np.unique(numbers[inside], return_inverse=True)[1]
    return labels


def perfect(labels: NDArray[np.int32], sigma: float = 2.0) -> NDArray[np.float32]:
    """The maps of a network that knows: each voxel points exactly at the mean of its object."""
    grid = np.indices(labels.shape).astype(np.float32)
    offsets = np.zeros_like(grid)
    seediness = np.zeros(labels.shape, np.float32)
    if labels.any():
        centres = np.array([ndimage.mean(along, labels, range(labels.max() + 1)) for along in grid])
        offsets[:, labels > 0] = (centres[:, labels] - grid)[:, labels > 0]
        seediness[labels > 0] = 0.6 + 0.4 * np.exp(-(offsets**2).sum(0) / 20)[labels > 0]
    return np.concatenate([offsets, np.full_like(grid, sigma), seediness[None]])


def everywhere(maps: NDArray[np.float32], seed_threshold: float) -> NDArray[np.int32]:
    """The method without boxes: every voxel is compared with every seed."""
    axes = maps.ndim - 1
    places = (maps[:axes] + np.indices(maps.shape[1:]).astype(np.float32)).reshape(axes, -1)
    sigmas, seediness = maps[axes:-1].reshape(axes, -1), maps[-1].ravel()
    left = seediness > 0.5
    labels, seeds = np.zeros(seediness.size, np.int32), []
    while (sure := np.where(left, seediness, -1)).max() > seed_threshold:
        seed = int(sure.argmax())
        distance = (((places - places[:, [seed]]) / sigmas[:, [seed]]) ** 2).sum(0) / 2
        members = (np.exp(-distance) > 0.5) & (seediness > 0.5)
        if 2 * (members & left).sum() > members.sum():
            seeds.append(seed)
            labels[members & left] = len(seeds)
        left &= ~members
    ranks = np.concatenate([[0], 1 + np.argsort(np.argsort(seeds))]).astype(np.int32)
    return ranks[labels].reshape(maps.shape[1:])


@pytest.mark.parametrize(
    ("shape", "step", "radius"), [((61, 80), 16, 6), ((61, 80), 16, 7.9), ((20, 41, 35), 10, 4)]
)
def test_objects_that_are_known_come_back_exactly(shape: tuple[int, ...], step: int, radius: float) -> None:
    labels = discs(shape, step, radius)
    assert labels[..., 0].any(), "no object at the border"
    found = group(perfect(labels))
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_objects_that_touch_are_told_apart() -> None:
    labels = np.zeros((40, 60), np.int32)
    labels[5:25, 5:25], labels[5:25, 25:45], labels[25:35, 5:45] = 1, 2, 3
    np.testing.assert_array_equal(group(perfect(labels)), labels)


def test_an_object_of_several_parts_stays_one() -> None:
    labels = np.zeros((30, 60), np.int32)
    labels[10:20, 5:15] = labels[10:20, 30:40] = 1
    labels[12:18, 18:26] = 2
    # The mean of object 1 lies in object 2, so its sigma is to be smaller than the distance of the two.
    found = group(perfect(labels, sigma=0.3), seed_threshold=0.5)
    assert average_precision(found, labels, [1.0]) == {1.0: 1.0}


def test_one_object_and_none() -> None:
    labels = np.zeros((9, 16), np.int32)
    maps = perfect(labels)
    np.testing.assert_array_equal(group(maps), labels)
    labels[4, 7] = 1
    np.testing.assert_array_equal(group(perfect(labels)), labels)
    assert group(np.zeros((5, 0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("shape", [(37, 50), (9, 20, 30)])
def test_boxes_change_nothing(shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(0)
    axes = len(shape)
    offsets = random.normal(0, 6, (axes, *shape))
    maps = np.concatenate([offsets, random.uniform(0.3, 12, (axes, *shape)), random.random((1, *shape))])
    maps = maps.astype(np.float32)
    found = group(maps, seed_threshold=0.6)
    assert found.max() > 5
    np.testing.assert_array_equal(found, everywhere(maps, 0.6))


def test_places_outside_the_image_and_numbers_that_are_none_do_no_harm() -> None:
    maps = perfect(discs((40, 40), 20, 6))
    expected = group(maps)
    maps[0, 12, 0], maps[-1, 12, 0] = 1e30, 0.8
    maps[3, 12, 1], maps[-1, 12, 1] = np.nan, 1.0
    found = group(maps)
    found[12, :2] = expected[12, :2]
    np.testing.assert_array_equal(found, expected)


def test_equally_sure_voxels_are_taken_in_raster_order() -> None:
    labels = discs((64, 64), 16, 5)
    maps = perfect(labels)
    maps[-1] = labels > 0
    np.testing.assert_array_equal(group(maps), labels)


def test_small_objects_and_unsure_ones_are_background() -> None:
    labels = np.zeros((20, 40), np.int32)
    labels[5:15, 5:15], labels[9:11, 25:27] = 1, 2
    maps = perfect(labels)
    np.testing.assert_array_equal(group(maps, min_size=5), labels * (labels == 1))
    maps[-1, 5:15, 5:15] *= 0.8
    np.testing.assert_array_equal(group(maps), (labels == 2).astype(np.int32))


def test_an_object_that_was_mostly_taken_is_dropped() -> None:
    maps = np.zeros((5, 1, 10), np.float32)
    maps[2:4] = 1
    maps[1, 0] = [4, 3, 2, 1, 0, -1, 1, 0, -1, -2]  # six voxels point at 4, four at 7
    maps[-1, 0] = [0.95] * 4 + [1.0] + [0.95] * 3 + [0.99] + [0.95]
    maps[2:4, 0, 8] = 4  # whose Gaussian takes all
    np.testing.assert_array_equal(group(maps)[0], [1] * 6 + [0] * 4)


def test_other_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="5 in 2D and 7 in 3D"):
        group(np.zeros((4, 8, 8), np.float32))


def test_two_hundred_objects_in_a_megapixel_take_a_fraction_of_a_second() -> None:
    labels = discs((1024, 1024), 70, 20)
    assert labels.max() > 200
    maps = perfect(labels)
    started = time.process_time()
    found = group(maps)
    assert time.process_time() - started < 0.5  # 0.02 s on a core of its own
    np.testing.assert_array_equal(found, labels)
