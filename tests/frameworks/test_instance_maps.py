"""Maps for a watershed: what is learnt of labels, in 2D and 3D, and what is refused."""

from typing import Any

import numpy as np
import pytest
import torch
from metrics_for_tests import average_precision
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.instance_maps import InstanceMaps
from im2im_zoo.instances.methods.watershed import group


class Output(nn.Module):
    """A network whose output is its only parameter, whatever the image."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.output = nn.Parameter(torch.zeros(1, *shape))

    def forward(self, image: Tensor) -> Tensor:
        return self.output


def blocks(*shape: int) -> Tensor:
    """Labels, (1, 1, (z,) y, x): blocks that touch, and one at the border."""
    labels = torch.zeros(1, 1, *shape)
    labels[..., 4:11, 4:10], labels[..., 4:11, 10:17], labels[..., 16:, 20:] = 3, 5, 9
    return labels


@pytest.mark.parametrize("shape", [(24, 32), (5, 24, 32)])
@pytest.mark.parametrize(
    ("maps", "kwargs"),
    [
        (["distance", "boundary"], {"seed_threshold": 0.6, "foreground_threshold": 0.2, "boundary": 1}),
        (["affinities"], {"affinities": 0}),
    ],
)
def test_an_output_that_learns_alone_becomes_the_objects(
    shape: tuple[int, ...], maps: Any, kwargs: dict[str, Any]
) -> None:
    labels, axes = blocks(*shape), len(shape)
    channels = InstanceMaps(nn.Identity(), maps, axes).output_channels(1)  # type: ignore[arg-type]
    framework = InstanceMaps(Output(channels, *shape), maps, axes, reach=3)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(framework.parameters(), lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        framework.loss(framework.network(labels), labels, None).backward()
        optimizer.step()
    learnt = torch.sigmoid(framework.exported_network()(labels))[0].detach().numpy()
    found, true = group(learnt, **kwargs), labels[0, 0].numpy().astype(int)
    assert average_precision(found, true, [0.9]) == {0.9: 1.0}


def test_a_voxel_that_does_not_count_has_no_gradient() -> None:
    labels = blocks(24, 32)
    cost = torch.ones_like(labels)
    cost[..., 6, 6] = 0
    for maps in (["distance", "boundary"], ["affinities"]):
        network = Output(2, 24, 32)
        InstanceMaps(network, maps, reach=3).loss(network(labels), labels, cost).backward()  # type: ignore[arg-type]
        still = (network.output.grad == 0)[0]  # type: ignore[operator]
        assert still[:, 6, 6].all()
        assert not still[:, 8, 8].any()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"maps": ["distances"]}, "maps is .*distances.*give some of distance, boundary, affinities"),
        ({"maps": []}, "give some of"),
        ({"reach": 0}, "a reach of 1 voxel"),
    ],
)
def test_maps_that_there_are_not_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        InstanceMaps(nn.Identity(), **kwargs)


def test_a_target_that_is_no_labels_or_has_other_axes_is_refused() -> None:
    framework = InstanceMaps(nn.Identity())
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(TrainingError, match=r"InstanceMaps: the target has 1 channel.* whole numbers"):
        framework.loss(image, image, None)
    with pytest.raises(TrainingError, match="spatial_dims is 2, but the images have 3"):
        framework.loss(torch.zeros(1, 1, 4, 8, 8), torch.zeros(1, 1, 4, 8, 8), None)


def test_labels_of_any_size_are_told_apart() -> None:
    labels = torch.tensor([[[[70000.0, 70001.0, 70001.0]]]])
    network = Output(2, 1, 3)
    loss = InstanceMaps(network, ["affinities"]).loss(network(labels), labels, None)
    loss.backward()
    gradient = network.output.grad
    assert gradient is not None
    assert np.sign(gradient[0, 1, 0].numpy()).tolist() == [0, 1, -1]
