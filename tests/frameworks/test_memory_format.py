"""The memory format of the networks of a framework, as a recipe asks for it."""

import pytest
import torch
from adversarial_for_tests import batches, convolution, fit, small_gan

from im2im_zoo.frameworks.fcn import FCN
from im2im_zoo.frameworks.pix2pix import Pix2Pix
from im2im_zoo.training.speed import NetworkSpeedup


@pytest.mark.parametrize(
    ("ndim", "memory_format"), [(2, torch.channels_last), (3, torch.channels_last_3d)], ids=["2d", "3d"]
)
def test_all_networks_of_a_framework_get_the_memory_format_of_their_dimensions(
    ndim: int, memory_format: torch.memory_format
) -> None:
    network = torch.nn.Sequential(
        convolution(ndim), (torch.nn.Conv2d if ndim == 2 else torch.nn.Conv3d)(1, 3, 3)
    )
    network.append((torch.nn.Conv2d if ndim == 2 else torch.nn.Conv3d)(3, 1, 3, padding=2))
    framework = Pix2Pix(network, discriminator=small_gan)
    fit(framework, batches(ndim), callbacks=[NetworkSpeedup(True, False)])
    large = [p for p in framework.parameters() if p.ndim == ndim + 2 and p.shape[1] > 1]
    assert len(large) > 3
    assert all(p.is_contiguous(memory_format=memory_format) for p in large)


def test_on_a_processor_the_memory_format_stays_as_it_is_unless_asked_for() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.Conv2d(3, 1, 3, padding=2))
    fit(FCN(network, torch.nn.MSELoss()), batches(2), callbacks=[NetworkSpeedup(None, False)])
    assert network[1].weight.is_contiguous()
