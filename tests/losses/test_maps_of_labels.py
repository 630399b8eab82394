"""Maps of instance labels: what each is, by hand, and that a watershed makes the labels of them again."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from im2im_zoo.instances.methods.watershed import group
from im2im_zoo.losses.instance_maps import channels_of, maps_of, weights_of


def in_2d(*rows: str) -> Tensor:
    return torch.tensor([[[[float(c) for c in row] for row in rows]]])


def test_the_maps_are_those_by_hand() -> None:
    labels = in_2d("00000", "01122", "01122", "01122")
    distance, boundary, along_y, along_x = maps_of(labels, ["distance", "boundary", "affinities"], 2)[0]
    # The object 2 goes on to the right and below, as far as is known.
    assert (2 * distance).tolist() == [[0] * 5, [0, 1, 1, 1, 1], [0, 1, 1, 1, 2], [0, 1, 1, 1, 2]]
    assert boundary.tolist() == [[0] * 5, [0, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0]]
    assert along_y.tolist() == [[0] * 5, [0] * 5, [0, 1, 1, 1, 1], [0, 1, 1, 1, 1]]
    assert along_x.tolist() == [[0] * 5, *[[0, 0, 1, 0, 1]] * 3]


@pytest.mark.parametrize("shape", [(30, 40), (9, 16, 20)])
def test_the_distance_is_that_to_the_nearest_voxel_of_anything_else_in_steps(shape: tuple[int, ...]) -> None:
    labels = np.zeros(shape, np.int64)
    labels[(..., slice(5, 14), slice(2, 11))], labels[(..., slice(5, 14), slice(11, 19))] = 1, 2
    found = maps_of(torch.tensor(labels[None, None]).float(), ["distance"], 50)[0, 0].numpy() * 50
    wanted = sum(
        ndimage.distance_transform_cdt(labels == n, "taxicab") for n in (1, 2)
    )  # which has no border of an image, either
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_what_the_patch_does_not_show_does_not_count() -> None:
    cost = in_2d("1111", "1001", "1111")
    weights = weights_of(cost, ["affinities", "distance"])[0]
    assert weights[0].tolist() == [[0] * 4, [1, 0, 0, 1], [1, 0, 0, 1]]
    assert weights[1].tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1]]
    torch.testing.assert_close(weights[2], cost[0, 0])


def touching(shape: tuple[int, ...]) -> np.ndarray:
    """Cells at random places that fill most of an image, those that a seed fits into."""
    random = np.random.default_rng(0)
    seeds = np.array([random.uniform(0, n, 12) for n in shape])
    far = [
        np.linalg.norm([g - s for g, s in zip(np.indices(shape), seed, strict=True)], axis=0)
        for seed in seeds.T
    ]
    labels = 1 + np.argmin(far, axis=0)
    labels[np.min(far, axis=0) > max(shape) / 4] = 0
    for number in range(1, 13):
        core = ndimage.binary_erosion(labels == number, border_value=1)
        if ndimage.label(core)[1] != 1:
            labels[labels == number] = 0
    return labels


@pytest.mark.parametrize("shape", [(48, 60), (14, 20, 24)])
def test_a_watershed_of_affinities_gives_the_labels_again(shape: tuple[int, ...]) -> None:
    labels = touching(shape)
    maps = maps_of(torch.tensor(labels[None, None]).float(), ["distance", "affinities"], 3)[0].numpy()
    found = group(maps, affinities=1)
    assert found.max() == len(np.unique(labels)) - 1 > 5
    pairs = np.unique(np.stack([found.ravel(), labels.ravel()]), axis=1)
    assert len(pairs[0]) == len(np.unique(labels)), "one object is one label, and the background none"
    assert channels_of(["distance", "affinities"], len(shape)) == len(maps)


def test_a_watershed_of_distances_over_boundaries_gives_the_labels_nearly_again() -> None:
    labels = touching((96, 120))
    maps = maps_of(torch.tensor(labels[None, None]).float(), ["distance", "boundary"], 3)[0].numpy()
    found = group(maps, seed_threshold=0.5, foreground_threshold=0.1, boundary=1)
    same = (found > 0) == (labels > 0)
    assert same.all()
    pairs, counts = np.unique(np.stack([found[found > 0], labels[found > 0]]), axis=1, return_counts=True)
    assert sum(counts[pairs[1] == n].max() for n in np.unique(pairs[1])) > 0.97 * (labels > 0).sum()
