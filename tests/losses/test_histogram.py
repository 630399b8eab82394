"""Sorted intensities and the discriminator that sees nothing else."""

import pytest
import torch

from im2im_zoo.losses.histogram import HistogramDiscriminator, sorted_intensities


def test_groups_of_sorted_voxels_are_averaged_a_channel() -> None:
    images = torch.tensor([[[[4.0, 1.0]], [[0.0, 10.0]]], [[[2.0, 3.0]], [[30.0, 20.0]]]])
    assert torch.equal(sorted_intensities(images, 2), torch.tensor([[3.5, 1.5], [25.0, 5.0]]))


def test_groups_that_do_not_divide_hold_every_voxel_once() -> None:
    images = torch.arange(10.0).reshape(1, 1, 2, 5)
    assert sorted_intensities(images, 3).tolist() == [[8.0, 5.0, 1.5]]


def test_where_the_voxels_are_does_not_matter() -> None:
    images = torch.rand(2, 1, 4, 8, 8)
    shuffled = images.flatten()[torch.randperm(images.numel())].reshape(images.shape)
    discriminator = HistogramDiscriminator(1, groups=32).eval()
    torch.testing.assert_close(discriminator(images), discriminator(shuffled))
    assert not torch.equal(discriminator(images), discriminator(images + 1))


def test_each_voxel_has_a_gradient() -> None:
    images = torch.rand(1, 2, 8, 8, requires_grad=True)
    sorted_intensities(images, 4).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    torch.testing.assert_close(images.grad, torch.full_like(images, 4 / 64))


def test_noise_is_added_in_training_only() -> None:
    discriminator, images = HistogramDiscriminator(1, groups=8), torch.rand(1, 1, 8, 8)
    assert not torch.equal(discriminator(images), discriminator(images))
    discriminator.eval()
    assert torch.equal(discriminator(images), discriminator(images))


def test_fewer_voxels_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="4 voxels a channel cannot be sorted into 8 groups"):
        sorted_intensities(torch.rand(1, 1, 2, 2), 8)
