"""Connected components of a thresholded map: exactly scipy's, in raster order."""

import numpy as np
import pytest
from scipy import ndimage

from im2im_zoo.instances.methods.components import group


@pytest.mark.parametrize("shape", [(40, 50), (12, 20, 17), (1, 7), (7, 1), (1, 1)])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.5, 0.7, 1.0])
def test_components_and_their_order_are_those_of_scipy(shape: tuple[int, ...], part: float) -> None:
    maps = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    expected, count = ndimage.label(maps[1] < part)
    labels = group(-maps, channel=1, threshold=-part)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)
    assert labels.max() == count


def test_a_spiral_is_one_object() -> None:
    mask = np.zeros((33, 33), np.float32)
    for ring in range(0, 16, 2):
        mask[ring, ring : -ring or None] = mask[-1 - ring, ring : -ring or None] = 1
        mask[ring : -ring or None, ring] = mask[ring : -ring or None, -1 - ring] = 1
        mask[ring + 1, ring] = 0
        mask[ring + 2, ring : ring + 3] = 1
    expected, count = ndimage.label(mask)
    assert count < 8
    np.testing.assert_array_equal(group(mask[None]), expected)


def test_what_is_small_is_background_and_the_others_are_numbered_without_gaps() -> None:
    maps = np.zeros((1, 6, 9), np.float32)
    maps[0, 0, 0] = maps[0, 5, 8] = 1
    maps[0, 2, 1:4] = maps[0, 4, 2:6] = 1
    labels = group(maps, min_size=3)
    assert np.unique(labels).tolist() == [0, 1, 2]
    assert (labels[2, 1:4] == 1).all()
    assert (labels[4, 2:6] == 2).all()


def test_voxels_that_meet_at_a_corner_are_apart() -> None:
    assert group(np.eye(3, dtype=np.float32)[None]).max() == 3


def test_maps_that_may_not_be_written_to_are_grouped() -> None:
    maps = np.eye(3, dtype=np.float32)[None]
    maps.flags.writeable = False
    assert group(maps).max() == 3
