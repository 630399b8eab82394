"""Connected components of a thresholded map: exactly scipy's, in raster order."""

import numpy as np
import pytest
from label_scenes import disc
from scipy import ndimage

from im2im_zoo.instances.methods import components
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


@pytest.mark.parametrize(("shape", "spacing"), [((40, 50), None), ((40, 50), (1.0, 2.5)), ((9, 14, 17), (3.7, 1.0, 1.0))])  # fmt: skip
@pytest.mark.parametrize("part", [0.3, 0.7, 0.97])
def test_holes_and_distances_are_those_of_scipy(
    shape: tuple[int, ...], spacing: tuple[float, ...] | None, part: float
) -> None:
    mask = np.random.default_rng(1).random(shape) < part
    np.testing.assert_array_equal(components.filled(mask), ndimage.binary_fill_holes(mask))
    wanted = ndimage.distance_transform_edt(mask, sampling=spacing)
    np.testing.assert_allclose(np.sqrt(components.distances(mask, spacing)), wanted, rtol=1e-6)
    expected, _ = ndimage.label(ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(group(mask[None].astype(np.float32), fill_holes=True), expected)


def discs(distance: float, radii: tuple[float, float] = (10, 10), ndim: int = 2) -> np.ndarray:
    """Two overlapping balls, and whether a voxel is nearer to the first."""
    shape = (29, 29, 60)[-ndim:]
    centres = [(14.0,) * (ndim - 1) + (x,) for x in (15.0, 15.0 + distance)]
    balls = [disc(shape, c, r) for c, r in zip(centres, radii, strict=True)]
    return np.stack([balls[0] | balls[1]]).astype(np.float32)


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_touches_is_split_where_its_neck_is_narrow(ndim: int) -> None:
    # Half the width of the neck of two discs at distance d is sqrt(r^2 - d^2 / 4): 0.71 r at 1.4 r, 0.87 r at r.
    assert group(discs(14, ndim=ndim)).max() == 1
    split = group(discs(14, ndim=ndim), split_touching=True)
    assert split.max() == 2
    middle = (14,) * (ndim - 1)
    assert (split[middle][15], split[middle][29], split[middle][21]) == (1, 2, 1)
    sizes = np.bincount(split.ravel())[1:]
    assert abs(sizes[0] - sizes[1]) < 0.12 * sizes[0]
    assert group(discs(10, ndim=ndim), split_touching=True).max() == 1
    assert group(discs(10, ndim=ndim), split_touching=True, neck=0.95).max() == 2
    assert group(discs(14, ndim=ndim), split_touching=True, neck=0.6).max() == 1


def test_the_neck_is_measured_by_the_narrower_part() -> None:
    assert group(discs(14, (10, 6)), split_touching=True, neck=0.95).max() == 2
    # Of which the smaller one, with a neck as wide as itself, is a bulge.
    assert group(discs(9, (10, 4)), split_touching=True, neck=0.95).max() == 1


@pytest.mark.parametrize("angle", [0, 20, 45, 70])
def test_a_rod_and_a_disc_are_not_split(angle: float) -> None:
    y, x = np.indices((80, 80)) - 40.0
    turned = np.deg2rad(angle)
    along, across = x * np.cos(turned) + y * np.sin(turned), y * np.cos(turned) - x * np.sin(turned)
    rod = (np.abs(along) < 30) & (np.abs(across) < 6)
    for mask in (rod, disc((80, 80), (40, 40), 25.5)):
        assert group(mask[None].astype(np.float32), split_touching=True).max() == 1


def test_voxels_that_are_longer_along_an_axis_are_measured_so() -> None:
    flat = discs(14, ndim=3)[:, 2::4]  # planes four times as far apart as pixels
    wanted = group(discs(14, ndim=3), split_touching=True)[2::4]
    split = group(flat, split_touching=True, spacing=(4.0, 1.0, 1.0))
    assert split.max() == 2
    assert (split == wanted).mean() > 0.99


def test_nuclei_that_touch_are_counted(nuclei_2d: tuple[np.ndarray, np.ndarray]) -> None:
    labels = nuclei_2d[1]
    mask = (labels > 0)[None].astype(np.float32)
    true = len(np.unique(labels)) - 1
    before, after = group(mask).max(), group(mask, split_touching=True).max()
    assert before < 0.9 * true
    assert 0.96 * true < after < 1.04 * true


def test_split_objects_that_are_small_are_background_without_gaps() -> None:
    split = group(discs(14, (10, 6)), split_touching=True, neck=0.95, min_size=150)
    assert np.unique(split).tolist() == [0, 1]
    assert split[14, 15] == 1


def test_everything_and_nothing_are_one_and_no_object() -> None:
    for options in ({"fill_holes": True}, {"split_touching": True}):
        assert (group(np.ones((1, 7, 9), np.float32), **options) == 1).all()
        assert not group(np.zeros((1, 7, 9), np.float32), **options).any()
