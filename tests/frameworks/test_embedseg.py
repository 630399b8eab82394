"""EmbedSeg: what it learns and exports, and that what it exports is what the grouping takes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from metrics_for_tests import average_precision
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.embedseg import EmbedSeg
from im2im_zoo.instances.methods.embedseg import group
from im2im_zoo.networks.anisotropic_unet import AnisotropicUNet
from im2im_zoo.networks.embedding_maps import EmbeddingMaps
from im2im_zoo.networks.erfnet import BranchedERFNet
from im2im_zoo.recipe.components import Component, build_component


class Output(nn.Module):
    """A network whose output is its only parameter, whatever the image."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, image: Tensor) -> Tensor:
        return self.output


def blocks(*shape: int) -> Tensor:
    """Labels, (1, 1, (z,) y, x): blocks that touch, one in two parts, one at the border."""
    labels = torch.zeros(1, 1, *shape)
    labels[..., 4:10, 4:10], labels[..., 4:10, 10:17], labels[..., 16:, 20:] = 3, 5, 9
    labels[..., 14:18, 2:5] = labels[..., 14:18, 8:11] = 12
    return labels


SPACES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((24, 32), {"voxel_size": [1.0, 1.0]}),
    ((24, 32), {"voxel_size": [0.2, 0.1], "isotropic": True}),
    ((5, 24, 32), {"voxel_size": [2.5, 1, 1]}),
    ((5, 24, 32), {"voxel_size": [3.0, 1.0, 1.0], "isotropic": True}),
]


@pytest.mark.parametrize(("shape", "options"), SPACES)
def test_an_output_that_learns_alone_becomes_the_objects(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    labels, unit = blocks(*shape), min(options["voxel_size"])
    channels = len(shape) + (1 if options.get("isotropic") else len(shape)) + 1
    torch.manual_seed(0)
    network = Output(0.01 * torch.randn(1, channels, *shape))
    framework = EmbedSeg(network, grid=16 * unit, sigma=3 * unit, **options)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        loss = framework._loss(framework.terms(network(labels), labels, None))
        loss.backward()
        optimizer.step()
    terms = framework.terms(network(labels), labels, None)
    assert loss < 0.1
    assert terms.iou.min() > 0.95
    maps = framework.exported_network()(labels)[0].detach().numpy()
    found, true = group(maps, min_size=4), labels[0, 0].numpy().astype(int)
    assert average_precision(found, true, [0.9]) == {0.9: 1.0}


@pytest.mark.parametrize(("shape", "options"), SPACES)
def test_the_maps_are_in_voxels_and_probabilities(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    axes, sizes = len(shape), options["voxel_size"]
    sigmas = 1 if options.get("isotropic") else axes
    raw = torch.randn(2, axes + sigmas + 1, *shape, generator=torch.Generator().manual_seed(0)) / 4
    framework = EmbedSeg(Output(raw), grid=8.0, sigma=2.0, **options)
    maps = framework.exported_network()(torch.zeros(2, 1, *shape))
    assert maps.shape == (2, framework.output_channels(1), *shape)
    for axis, size in enumerate(sizes):
        torch.testing.assert_close(maps[:, axis] * size, 8 * torch.tanh(raw[:, axis]))
        sigma = raw[:, axes] if sigmas == 1 else raw[:, axes + axis]
        # 1 / (2 sigma²) as the loss takes it.
        length = maps[:, axes + axis] * size
        torch.testing.assert_close(1 / (2 * length**2), framework._precision(sigma), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(maps[:, -1], torch.sigmoid(raw[:, -1]))


@pytest.mark.parametrize(
    ("make", "shape", "options"),
    [
        (partial(BranchedERFNet, 2, 1, (4, 1), (4, 8, 12), (0.0, 0.0)), (24, 32), SPACES[0][1]),
        (partial(AnisotropicUNet, 1, 7, (8, 12)), (5, 24, 32), SPACES[2][1]),
    ],
    ids=["2d", "3d"],
)
def test_networks_of_2d_and_3d_learn_a_batch_by_heart(
    make: Callable[[], nn.Module], shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    network = make()
    labels, unit = blocks(*shape), min(options["voxel_size"])
    random = torch.Generator().manual_seed(0)
    image = (labels > 0) + 0.1 * torch.randn(labels.shape, generator=random)
    framework = EmbedSeg(network, grid=16 * unit, sigma=3 * unit, **options)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = framework._loss(framework.terms(network(image), labels, None))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in network.parameters())


def test_excluded_voxels_have_no_gradient_and_no_object() -> None:
    labels = blocks(24, 32)
    cost = torch.ones_like(labels)
    cost[..., 12:, 16:] = 0
    network = Output(0.1 * torch.randn(1, 5, 24, 32, generator=torch.Generator().manual_seed(0)))
    framework = EmbedSeg(network, voxel_size=[1, 1], grid=16, sigma=3)
    terms = framework.terms(network(labels), labels, cost)
    framework._loss(terms).backward()
    assert network.output.grad is not None
    assert (network.output.grad[..., 12:, 16:] == 0).all()
    assert (network.output.grad[:, -1, :12] != 0).all()
    assert len(terms.iou) == 3


def test_the_medoid_is_the_centre_that_is_asked_for() -> None:
    labels = torch.zeros(1, 1, 9, 40)
    labels[..., :2, 30:], labels[..., 2:, 30:32] = 1, 1
    losses = {}
    for centre in ("centroid", "medoid"):
        raw = torch.full((1, 5, 9, 40), -9.0)
        network = Output(raw)
        framework = EmbedSeg(network, voxel_size=[1, 1], grid=1e-3, sigma=1, centre=centre)
        losses[centre] = framework.terms(torch.zeros_like(raw), labels, None).instance.item()
    assert losses["centroid"] != losses["medoid"]


def test_a_package_builds_the_exported_network_of_plain_values() -> None:
    component = Component(
        callable="im2im_zoo.networks.anisotropic_unet.AnisotropicUNet",
        kwargs={"out_channels": 7, "features": [4, 6]},
    )
    framework = EmbedSeg(build_component(component, "network"), voxel_size=[2, 1, 1], grid=8, sigma=2)
    architecture = framework.exported_architecture(component)
    rebuilt = build_component(architecture, "network")
    assert type(rebuilt) is EmbeddingMaps
    rebuilt.load_state_dict(framework.exported_network().state_dict())
    image = torch.rand(1, 1, 3, 8, 8)
    torch.testing.assert_close(rebuilt.eval()(image), framework.exported_network().eval()(image))


def test_half_precision_learns_too() -> None:
    labels = blocks(24, 32)
    network = Output(torch.randn(1, 5, 24, 32).bfloat16())
    framework = EmbedSeg(network, voxel_size=[1, 1], grid=16, sigma=3)
    with torch.autocast("cpu", torch.bfloat16):
        loss = framework._loss(framework.terms(network(labels), labels, None))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_a_target_that_is_no_labels_is_refused() -> None:
    framework = EmbedSeg(Output(torch.zeros(1, 5, 8, 8)), voxel_size=[1, 1], grid=16, sigma=3)
    for target in (torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, 2, 8, 8)):
        with pytest.raises(TrainingError, match=r"whole numbers; remove scaling from target\.preprocessing"):
            framework.terms(torch.zeros(1, 5, 8, 8), target, None)


@pytest.mark.parametrize(
    "options",
    [{"voxel_size": [1]}, {"voxel_size": [1, 0]}, {"grid": 0}, {"sigma": -1}, {"centre": "median"}],
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match=r"framework\.kwargs"):
        EmbedSeg(nn.Identity(), **{"voxel_size": [1, 1], "grid": 16, "sigma": 3, **options})


def test_no_objects_in_a_batch_leave_every_parameter_a_gradient() -> None:
    network = nn.Conv2d(1, 5, 1)
    framework = EmbedSeg(network, voxel_size=[1, 1], grid=16, sigma=3)
    labels = torch.zeros(2, 1, 8, 8)
    framework._loss(framework.terms(network(labels), labels, None)).backward()
    assert all(p.grad is not None for p in network.parameters())
    assert np.isfinite(network.weight.grad.numpy()).all()  # type: ignore[union-attr]
