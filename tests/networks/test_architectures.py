"""Each network that recipes name trains, exports, and is measured as it can be counted."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, TRANSFORMERS, Architecture, parameters
from torch import nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks import Grid, as_call, receptive_field_radius, step_grid
from im2im_zoo.networks.anisotropic_unet import AnisotropicUNet
from im2im_zoo.networks.erfnet import BranchedERFNet, ERFNet
from im2im_zoo.networks.fnet import FNet
from im2im_zoo.packaging.export.weights import FORMATS, Weights, write_weights
from im2im_zoo.recipe.components import Component, build_component

# One of each kind is exported in the fast tests, the others in the slow ones.
EXPORTED_FAST = ("FNet-2d", "BranchedERFNet-2d", "AnisotropicUNet-3d")


def component(architecture: Architecture) -> Component:
    return Component(callable=architecture.path, kwargs=dict(architecture.kwargs))


def network_of(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = build_component(component(architecture), "network")
    return built


@cache
def grid_of(index: int) -> Grid:
    architecture = ARCHITECTURES[index]
    return step_grid(network_of(architecture).eval(), 1, architecture.ndim)


def measured(architecture: Architecture) -> Grid:
    return grid_of(ARCHITECTURES.index(architecture))


def exports() -> list[Any]:
    return [
        pytest.param(*p.values, id=p.id, marks=[] if p.id in EXPORTED_FAST else [pytest.mark.slow])
        for p in parameters(ARCHITECTURES, slow=False)
    ]


def written(architecture: Architecture, grid: Grid, folder: Path) -> Weights:
    """As `export` writes them: each format is compared with the network at several sizes, and left out if it differs."""
    return write_weights(
        network_of(architecture).eval(),
        folder,
        FORMATS,
        grid=grid,
        image=np.zeros((1, 1, *grid.min)),
        tensors=("input", "output"),
        architecture=component(architecture),
    )


@pytest.mark.parametrize("architecture", parameters([*ARCHITECTURES, *TRANSFORMERS]))
def test_it_learns_a_batch_and_each_parameter_that_it_uses_has_a_finite_gradient(
    architecture: Architecture,
) -> None:
    network = network_of(architecture)
    size = [2 * s for s in architecture.step] if architecture.smallest is None else architecture.smallest
    image = torch.randn(2, 1, *size)
    target = (2 * image + 1).expand(network(image).shape).clone()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        loss = torch.nn.functional.mse_loss(network(image), target)
        optimizer.zero_grad()
        loss.backward()
        unused = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
        assert all(
            architecture.without_gradient is not None and architecture.without_gradient in n for n in unused
        )
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]  # of five seeds 0.19 to 0.985 times


@pytest.mark.parametrize("architecture", parameters(ARCHITECTURES))
def test_its_grid_is_that_of_its_strides(architecture: Architecture) -> None:
    assert measured(architecture) == Grid(architecture.smallest or architecture.step, architecture.step)


@pytest.mark.parametrize("architecture", parameters(ARCHITECTURES))
def test_its_receptive_field_is_that_of_its_longest_way_through(architecture: Architecture) -> None:
    grid = Grid(architecture.smallest or architecture.step, architecture.step)
    assert receptive_field_radius(network_of(architecture).eval(), 1, grid) == architecture.radius


@pytest.mark.parametrize("architecture", exports())
def test_each_weight_format_of_it_gives_what_it_gives(architecture: Architecture, tmp_path: Path) -> None:
    grid = Grid(architecture.smallest or architecture.step, architecture.step)
    weights = written(architecture, grid, tmp_path)
    assert weights.left_out == {}
    assert set(weights.files) == set(FORMATS)
    assert max(weights.errors.values()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("architecture", parameters(TRANSFORMERS, slow=False))
def test_a_transformer_is_written_in_all_formats_at_the_size_of_its_training(
    architecture: Architecture, tmp_path: Path
) -> None:
    assert architecture.smallest is not None
    network = network_of(architecture).eval()
    grid = step_grid(network, 1, architecture.ndim, patch=architecture.smallest)
    assert grid == Grid(architecture.smallest, architecture.step)
    assert receptive_field_radius(network, 1, grid) is None
    weights = written(architecture, grid, tmp_path)
    assert weights.left_out == {}
    assert set(weights.files) == set(FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", parameters([a for a in TRANSFORMERS if a.name == "SwinUNETR-2d"], slow=False)
)
def test_swin_unetr_takes_several_sizes_as_a_state_dict(architecture: Architecture) -> None:
    assert architecture.smallest is not None
    network = network_of(architecture).eval()
    alone = step_grid(as_call(network), 1, architecture.ndim, patch=architecture.smallest)
    assert alone == step_grid(network, 1, architecture.ndim) == Grid((64, 64), (32, 32))


def test_every_row_of_the_documentation_says_what_is_measured_here(repository: Path) -> None:
    text = (repository / "docs/networks-and-losses.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    documented = {(row[0].strip("`"), row[1], row[3], row[4]) for row in rows if row[1] in ("2D", "3D")}
    for architecture in ARCHITECTURES:
        grid = " x ".join(map(str, architecture.smallest or architecture.step))
        reach = "everywhere" if architecture.radius is None else " x ".join(map(str, architecture.radius))
        assert (architecture.path, f"{architecture.ndim}D", grid, reach) in documented


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_fnet_at_its_defaults_has_the_layers_of_the_paper() -> None:
    def convolution(entering: int, leaving: int, voxels: int) -> int:
        return entering * leaving * voxels + leaving

    widths = [32, 64, 128, 256, 512]
    expected = convolution(32, 1, 27)
    for entering, width in zip([1, *widths], widths, strict=False):
        expected += convolution(entering, width, 27) + convolution(width, width, 27) + 4 * width
    for width in widths[:-1]:
        expected += convolution(width, width, 8) + convolution(2 * width, width, 8) + 4 * width
        expected += convolution(2 * width, width, 27) + convolution(width, width, 27) + 4 * width
    assert count(FNet()) == expected == 23_280_769


def test_erfnet_has_the_two_million_parameters_of_the_paper_and_a_decoder_more_a_tenth_of_them() -> None:
    # Table I of the paper, for RGB and the 20 classes of Cityscapes; others count 2.06 to 2.07 million.
    network = ERFNet(2, in_channels=3, out_channels=20)
    assert count(network) == 2_064_256
    branched = BranchedERFNet(2, in_channels=3, out_channels=[20, 20])
    assert count(branched) - count(network) == count(network.decoder)


def test_erfnet_drops_out_in_training_in_the_encoder_only() -> None:
    network = ERFNet(3, features=[2, 4, 6])
    rates = [m.p for m in network.encoder.modules() if isinstance(m, nn.Dropout3d)]
    assert rates == 5 * [0.03] + 8 * [0.3]
    assert {m.p for m in network.decoder.modules() if isinstance(m, nn.Dropout3d)} == {0.0}


def test_branches_share_the_encoder_and_are_concatenated_in_their_order() -> None:
    torch.manual_seed(0)
    network = BranchedERFNet(2, out_channels=[3, 1], features=[2, 4, 6]).eval()
    image = torch.randn(1, 1, 16, 16)
    output, encoded = network(image), network.encoder(image)
    assert torch.equal(output[:, :3], network.decoders[0](encoded))
    assert torch.equal(output[:, 3:], network.decoders[1](encoded))


def test_kernels_of_one_slice_keep_an_anisotropic_unet_within_its_slice() -> None:
    network = AnisotropicUNet(features=[2, 4, 4], z_kernels=[1, 1, 3]).eval()
    # Only the two convolutions at the bottom look beyond.
    assert receptive_field_radius(network, 1, Grid((1, 4, 4), (1, 4, 4))) == (2, 23, 23)


@pytest.mark.parametrize(
    ("path", "kwargs", "message"),
    [
        ("fnet.FNet", {"spatial_dims": 4}, "spatial_dims is 4"),
        ("fnet.FNet", {"depth": -1}, "depth is -1"),
        ("erfnet.ERFNet", {"spatial_dims": 1}, "spatial_dims is 1"),
        ("erfnet.ERFNet", {"in_channels": 16}, "more than the 16 channels"),
        ("erfnet.ERFNet", {"dropout": [0.1]}, "two probabilities"),
        ("erfnet.BranchedERFNet", {"out_channels": []}, "out_channels is empty"),
        ("anisotropic_unet.AnisotropicUNet", {"features": [8]}, "two or more levels"),
        ("anisotropic_unet.AnisotropicUNet", {"z_kernels": [1, 3]}, "each of the 4 levels"),
        ("anisotropic_unet.AnisotropicUNet", {"z_kernels": [1, 2, 3, 3]}, "odd number"),
    ],
)
def test_arguments_that_make_no_network_are_refused_with_what_to_give(
    path: str, kwargs: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        build_component(Component(callable=f"im2im_zoo.networks.{path}", kwargs=dict(kwargs)), "network")
