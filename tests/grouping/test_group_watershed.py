"""The seeded watershed: the minimum spanning forest that Kruskal's algorithm finds, and much like what scikit-image floods."""

from typing import Any

import numpy as np
import pytest
from metrics_for_tests import average_precision
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from im2im_zoo.instances.methods.watershed import group


def kruskal(
    maps: NDArray[np.float32], seed: float, foreground: float, boundary: int | None
) -> NDArray[np.int32]:
    """One edge after the other, the lowest first; two trees that both have a seed stay apart."""
    inside = maps[0]
    heights = (-inside if boundary is None else maps[boundary]).ravel()
    mask, seeds = (inside > foreground).ravel(), (inside > seed).ravel()
    found = ndimage.label((inside > seed) & (inside > foreground))[0].ravel()
    tree, root = np.arange(mask.size), found.copy()
    edges = []
    flat = np.arange(mask.size).reshape(inside.shape)
    for axis in range(inside.ndim):
        for a, b in zip(np.delete(flat, -1, axis).ravel(), np.delete(flat, 0, axis).ravel(), strict=True):
            if mask[a] and mask[b]:
                high, low = sorted((heights[a], heights[b]), reverse=True)
                same = seeds[a] and seeds[b]
                edges.append((-np.inf, -np.inf, a, axis, b) if same else (high, low, a, axis, b))
    for *_, a, _, b in sorted(edges):
        one, two = tree[a], tree[b]
        if one != two and not (root[one] and root[two] and root[one] != root[two]):
            root[one] = root[one] or root[two]
            tree[tree == two] = one
    labels = np.where(mask, root[tree], 0)
    return labels.reshape(inside.shape)


@pytest.mark.parametrize("shape", [(17, 21), (6, 8, 9), (1, 30), (1, 1)])
@pytest.mark.parametrize("boundary", [None, 1])
@pytest.mark.parametrize("levels", [8, 1000])
def test_it_is_the_minimum_spanning_forest(shape: tuple[int, ...], boundary: int | None, levels: int) -> None:
    random = np.random.default_rng(0)
    # Few levels: many edges are equally high.
    maps = (np.round(random.random((2, *shape)) * levels) / levels).astype(np.float32)
    maps[0] = ndimage.gaussian_filter(maps[0], 1)
    maps[0] = np.round(levels * (maps[0] - maps[0].min()) / max(np.ptp(maps[0]), 1e-6)) / levels
    labels = group(maps, seed_threshold=0.7, foreground_threshold=0.3, boundary=boundary)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, kruskal(maps, 0.7, 0.3, boundary))


def kruskal_of_edges(maps: NDArray[np.float32], seed: float, joins: float) -> NDArray[np.int32]:
    """The same of affinities: one edge after the other, the surest first."""
    shape, flat = maps.shape[1:], np.arange(maps[0].size).reshape(maps.shape[1:])
    edges, core, foreground = [], np.ones(flat.size, bool), np.zeros(flat.size, bool)
    for axis in range(len(shape)):
        for a, b in zip(np.delete(flat, -1, axis).ravel(), np.delete(flat, 0, axis).ravel(), strict=True):
            sure = maps[axis].ravel()[b]
            core[[a, b]] &= sure > seed
            foreground[[a, b]] |= sure > joins
            if sure > joins:
                edges.append((-sure, a, axis, b))
    core &= foreground
    root = ndimage.label(core.reshape(shape))[0].ravel()
    edges = [(-np.inf if core[a] and core[b] else height, a, axis, b) for height, a, axis, b in edges]
    tree = np.arange(flat.size)
    for _, a, _, b in sorted(edges):
        one, two = tree[a], tree[b]
        if one != two and not (root[one] and root[two] and root[one] != root[two]):
            root[one] = root[one] or root[two]
            tree[tree == two] = one
    return root[tree].reshape(shape)


@pytest.mark.parametrize("shape", [(17, 21), (5, 7, 8), (1, 30), (1, 1)])
@pytest.mark.parametrize("levels", [8, 1000])
def test_of_affinities_it_is_the_minimum_spanning_forest_of_their_edges(
    shape: tuple[int, ...], levels: int
) -> None:
    random = np.random.default_rng(0)
    maps = (np.round(random.random((len(shape), *shape)) ** 0.3 * levels) / levels).astype(np.float32)
    labels = group(maps, affinities=0, seed_threshold=0.55, foreground_threshold=0.4)
    np.testing.assert_array_equal(labels, kruskal_of_edges(maps, 0.55, 0.4))


def test_an_affinity_that_is_low_joins_nothing_and_a_map_too_few_is_refused() -> None:
    maps = np.ones((2, 6, 12), np.float32)
    maps[1, :, 5] = 0.2  # between the columns 4 and 5
    maps[:, :, 9:] = 0
    labels = group(maps, affinities=0)
    assert np.unique(labels[:, :5]).tolist() == [1]
    assert np.unique(labels[:, 5:9]).tolist() == [2]
    assert not labels[:, 9:].any()
    for wrong in ({"affinities": 1}, {"affinities": 0, "boundary": 1}, {"affinities": -1}):
        with pytest.raises(ValueError, match="give the first of 2 channels"):
            group(maps, **wrong)


def touching_discs() -> tuple[NDArray[np.float32], NDArray[Any]]:
    y, x = np.indices((120, 160))
    inside = np.zeros((120, 160), bool)
    for cy, cx, r in ((30, 30, 18), (30, 62, 18), (60, 46, 16), (85, 110, 25), (100, 140, 15)):
        inside |= (y - cy) ** 2 + (x - cx) ** 2 < r**2
    return ndimage.distance_transform_edt(inside).astype(np.float32), inside


def test_discs_that_touch_are_told_apart_as_scikit_image_does() -> None:
    distance, inside = touching_discs()
    labels = group(distance[None], seed_threshold=12.5, foreground_threshold=0)
    flooded = watershed(-distance, ndimage.label(distance > 12.5)[0], mask=inside)
    assert labels.max() == flooded.max() == 5
    assert average_precision(labels, flooded, [0.9]) == {0.9: 1.0}
    assert (labels != flooded).mean() < 0.01


def test_what_no_seed_reaches_and_what_is_small_is_background() -> None:
    maps = np.zeros((1, 5, 20), np.float32)
    maps[0, 1:4, 1:4], maps[0, 2, 2] = 0.6, 0.9
    maps[0, 1:4, 7:12] = 0.6  # without a seed
    maps[0, 2, 15] = 0.9
    assert group(maps).max() == 2
    labels = group(maps, min_size=2)
    np.testing.assert_array_equal(labels[:, :5] > 0, maps[0, :, :5] > 0.5)
    assert not labels[:, 5:].any()


def test_nothing_gives_nothing() -> None:
    assert not group(np.zeros((1, 4, 5), np.float32)).any()
