"""Grid and receptive field of networks for which both are known from their layers."""

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import PackageError
from im2im_zoo.networks import Grid, as_call, receptive_field_radius, step_grid


class Resizing(nn.Module):
    """Halves and resizes to the size of its input: takes every size, but pools by two."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        pooled = F.max_pool2d(F.pad(image, (0, image.shape[-1] % 2, 0, image.shape[-2] % 2)), 2)
        return self.conv(image) + F.interpolate(pooled, size=image.shape[2:])


def basic_unet(ndim: int, norm: str = "batch") -> nn.Module:
    torch.manual_seed(0)
    return BasicUNet(ndim, 1, 1, features=(4, 4, 4, 8, 8, 4), norm=norm).eval()


def convolutions(n: int, ndim: int = 2) -> nn.Module:
    conv = nn.Conv2d if ndim == 2 else nn.Conv3d
    return nn.Sequential(*(conv(1, 1, 3, padding=1) for _ in range(n)))


@pytest.mark.parametrize("n", [1, 3, 5])
def test_radius_of_n_convolutions_of_three_is_n(n: int) -> None:
    network = convolutions(n)
    grid = step_grid(network, 1, 2)
    assert grid == Grid((1, 1), (1, 1))
    assert receptive_field_radius(network, 1, grid) == (n, n)


@pytest.mark.parametrize("step", [2, 3, 6])
def test_step_of_a_strided_network_is_its_stride(step: int) -> None:
    network = nn.Sequential(
        nn.Conv2d(2, 3, step, stride=step), nn.ReLU(), nn.ConvTranspose2d(3, 1, step, stride=step)
    )
    grid = step_grid(network, 2, 2)
    assert grid == Grid((step, step), (step, step))
    # A voxel reaches its own window only: from its first place the window's end is step - 1 voxels away.
    assert receptive_field_radius(network, 2, grid) == (step - 1, step - 1)


def test_step_is_measured_per_axis() -> None:
    network = nn.Sequential(
        nn.Conv3d(1, 2, 3, padding=1),
        nn.MaxPool3d((1, 2, 2)),
        nn.MaxPool3d((2, 2, 2)),
        nn.Upsample(scale_factor=(2, 4, 4)),
    )
    grid = step_grid(network, 1, 3)
    assert grid == Grid((2, 4, 4), (2, 4, 4))
    assert receptive_field_radius(network, 1, grid) == (2, 4, 4)


@pytest.mark.parametrize("ndim", [2, 3])
def test_basic_unet_has_step_16_though_it_pads_other_sizes_itself(ndim: int) -> None:
    network = basic_unet(ndim)
    assert as_call(network)(np.zeros((1, 1) + (17,) * ndim, np.float32)).shape[2:] == (17,) * ndim
    assert step_grid(network, 1, ndim) == Grid((16,) * ndim, (16,) * ndim)


def test_radius_of_basic_unet_is_that_of_its_worst_place_in_the_pooling_windows() -> None:
    network = basic_unet(2)
    # 2 (2 + 4 + 8 + 16) + 32 voxels of convolutions, and 15 from one end of a window of 16 to the other.
    assert receptive_field_radius(network, 1, step_grid(network, 1, 2)) == (107, 107)


def test_instance_norm_reaches_everywhere_and_needs_more_than_one_voxel_at_the_bottom() -> None:
    network = basic_unet(2, norm="instance")
    grid = step_grid(network, 1, 2)
    assert grid == Grid((32, 32), (16, 16))
    assert receptive_field_radius(network, 1, grid) is None


def test_a_network_that_resizes_itself_has_the_step_of_its_pooling() -> None:
    assert step_grid(Resizing().eval(), 1, 2).step == (2, 2)


def test_any_function_can_be_probed_against_a_reference() -> None:
    def only_even(image: np.ndarray) -> np.ndarray:
        if any(n % 2 for n in image.shape[2:]):
            raise RuntimeError("odd")
        return image

    assert step_grid(only_even, 1, 2) == Grid((2, 2), (2, 2))
    wrong = step_grid(lambda image: image * (image.shape[2] % 4 == 0), 1, 2, reference=lambda image: image)
    assert wrong == Grid((4, 1), (4, 1))


def test_a_network_that_changes_the_size_is_refused_with_its_output_shape() -> None:
    with pytest.raises(PackageError, match=r"at 256x256 its output has the shape \(254, 254\)"):
        step_grid(nn.Conv2d(1, 1, 3), 1, 2)


def test_a_network_that_takes_other_channels_is_refused_with_its_own_message() -> None:
    with pytest.raises(PackageError, match=r"expected input.*to have 3 channels"):
        step_grid(nn.Conv2d(3, 1, 3, padding=1), 1, 2)


def test_floor_is_on_the_grid_and_at_least_the_smallest_size() -> None:
    assert Grid((32, 16), (16, 8)).floor((100, 9)) == (96, 16)
