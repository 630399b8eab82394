"""The measured halo of networks whose reach is known, on a real image."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from im2im_zoo.networks import Grid, effective_halo, receptive_field_radius, step_grid


def normalised(image: NDArray[np.uint16]) -> NDArray[np.float32]:
    return ((image - image.mean()) / image.std()).astype(np.float32)[None, None]


def blur(radius: int) -> nn.Module:
    conv = nn.Conv2d(1, 1, 2 * radius + 1, padding=radius, bias=False)
    nn.init.constant_(conv.weight, 1 / (2 * radius + 1) ** 2)
    return conv


def fading() -> nn.Module:
    network = blur(20)
    distance = torch.arange(-20, 21).abs().float()
    kernel = torch.exp(-(distance[:, None] ** 2 + distance**2) / 8)
    network.load_state_dict({"weight": (kernel / kernel.sum())[None, None]})
    return network


def test_halo_of_a_box_filter_is_its_radius(nuclei_2d: tuple[NDArray[np.uint16], object]) -> None:
    halo = effective_halo(blur(5), normalised(nuclei_2d[0]), Grid((1, 1), (1, 1)), tolerance=1e-5)
    assert halo.voxels == (5, 5)
    assert halo.sufficient == (True, True)
    assert halo.error <= 1e-5


def test_weights_that_fall_off_need_less_than_the_receptive_field(
    nuclei_2d: tuple[NDArray[np.uint16], object],
) -> None:
    network = fading()
    grid = step_grid(network, 1, 2)
    halo = effective_halo(network, normalised(nuclei_2d[0][:256, :256]), grid, tolerance=1e-3)
    assert receptive_field_radius(network, 1, grid) == (20, 20)
    assert all(3 <= h <= 10 for h in halo.voxels)
    assert halo.sufficient == (True, True)


def test_the_error_is_seen_on_an_image_that_is_little_larger_than_twice_the_halo(
    nuclei_2d: tuple[NDArray[np.uint16], object],
) -> None:
    # A third of it, which is what a tile in its middle loses, leaves less than the halo on both sides does.
    image = normalised(nuclei_2d[0][:18, :18])
    halo = effective_halo(fading(), image, Grid((1, 1), (1, 1)))
    assert halo.sufficient == (True, True)
    assert all(2 * h >= 12 for h in halo.voxels)
    assert 0 < halo.error <= halo.tolerance


def test_a_cut_is_felt_along_its_own_axis_only(nuclei_2d: tuple[NDArray[np.uint16], object]) -> None:
    network = nn.Conv2d(1, 1, (1, 7), padding=(0, 3))
    halo = effective_halo(network, normalised(nuclei_2d[0]), Grid((1, 1), (1, 1)))
    assert halo.voxels[0] == 0
    assert 0 < halo.voxels[1] <= 3


def test_a_global_operation_has_no_sufficient_halo(nuclei_2d: tuple[NDArray[np.uint16], object]) -> None:
    halo = effective_halo(nn.InstanceNorm2d(1), normalised(nuclei_2d[0]), Grid((2, 2), (1, 1)))
    assert halo.sufficient == (False, False)


@pytest.mark.parametrize("size", [8, 20])
def test_an_image_too_small_to_be_cut_shows_no_sufficient_halo(size: int) -> None:
    image = np.random.default_rng(0).normal(size=(1, 1, size, size)).astype(np.float32)
    assert effective_halo(blur(5), image, Grid((16, 16), (16, 16))).sufficient == (False, False)
