"""The residual generator and the PatchGANs: sizes, grid, and receptive fields worked out layer by layer."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from im2im_zoo.frameworks.adversarial import patch_gan
from im2im_zoo.networks import Grid, receptive_field_radius, step_grid
from im2im_zoo.networks.patchgan import MultiScalePatchGAN
from im2im_zoo.networks.resnet_generator import ResnetGenerator, Upsampling

# The places of a layer's input that the places lo to hi of its output depend on.
Layer = Callable[[int, int], tuple[int, int]]
SEVEN: Layer = lambda lo, hi: (lo - 3, hi + 3)  # noqa: E731
THREE: Layer = lambda lo, hi: (lo - 1, hi + 1)  # noqa: E731
HALVING: Layer = lambda lo, hi: (2 * lo - 1, 2 * hi + 1)  # noqa: E731
DOUBLING: dict[Upsampling, Layer] = {
    "transposed": lambda lo, hi: (math.ceil((lo - 1) / 2), math.floor((hi + 1) / 2)),
    "nearest": lambda lo, hi: ((lo - 1) // 2, (hi + 1) // 2),
}


def radius(blocks: int, upsampling: Upsampling) -> int:
    """How far the output sees at most, wherever it lies on the grid of 4."""
    layers = [SEVEN, HALVING, HALVING, *[THREE] * 2 * blocks, *[DOUBLING[upsampling]] * 2, SEVEN]
    radii = []
    for place in range(64, 68):
        lo = hi = place
        for layer in reversed(layers):
            lo, hi = layer(lo, hi)
        radii += [place - lo, hi - place]
    return max(radii)


def generator(**kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    network = ResnetGenerator(**{"width": 2, "blocks": 1} | kwargs)
    for parameter in network.parameters():  # normal of 0.02 makes outputs too small to see
        parameter.data.mul_(10)
    return network.eval()


@pytest.mark.parametrize(("blocks", "upsampling"), [(0, "transposed"), (2, "transposed"), (1, "nearest")])
def test_the_generator_reaches_as_far_as_its_layers(blocks: int, upsampling: Upsampling) -> None:
    network = generator(blocks=blocks, upsampling=upsampling)
    grid = step_grid(network, 1, 2)
    assert grid.step == (4, 4)
    assert receptive_field_radius(network, 1, grid) == (radius(blocks, upsampling),) * 2


def test_the_generator_is_tiled_exactly_in_3d() -> None:
    network, image = generator(spatial_dims=3, blocks=0, padding="reflect"), torch.rand(1, 1, 8, 8, 88)
    halo = -(-radius(0, "transposed") // 4) * 4
    with torch.inference_mode():
        whole, tile = network(image), network(image[..., 20:])
    assert whole.shape == image.shape
    torch.testing.assert_close(tile[..., halo:], whole[..., 20 + halo :])


def test_instance_norm_sees_everything() -> None:
    assert (
        receptive_field_radius(generator(norm="instance", blocks=0), 1, Grid((8, 8), (4, 4)), limit=128)
        is None
    )


def test_the_generator_has_the_layers_and_weights_of_the_paper() -> None:
    network = ResnetGenerator(in_channels=3, out_channels=3, norm="instance", blocks=9)
    assert sum(p.numel() for p in network.parameters()) == 11_378_179  # of the authors' resnet_9blocks
    assert float(network.layers[3].weight.detach().std()) == pytest.approx(0.02, rel=0.02)  # type: ignore[union-attr]
    before = network.layers[3].weight.clone()  # type: ignore[operator]
    network.reset_parameters()
    assert not torch.equal(before, network.layers[3].weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["tanh", nn.Tanh()])
def test_channels_and_activation_are_as_asked(activation: Any) -> None:
    network = generator(in_channels=2, out_channels=3, activation=activation)
    output = network(100 * torch.rand(1, 2, 12, 16))
    assert output.shape == (1, 3, 12, 16)
    assert float(output.detach().abs().max()) <= 1


@pytest.mark.parametrize(
    "kwargs",
    [{"norm": "layer"}, {"padding": "mirror"}, {"upsampling": "bilinear"}, {"activation": "softmax"}],
)
def test_what_the_generator_does_not_have_is_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(kwargs.values()))}' is none of"):
        ResnetGenerator(**kwargs)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_output_of_the_default_patchgan_sees_70_voxels(ndim: int) -> None:
    size, layers = 96 if ndim == 2 else 80, patch_gan(spatial_dims=2, in_channels=1)
    if ndim == 3:  # narrow, for the time
        layers = partial(PatchDiscriminator, channels=2)(spatial_dims=3, in_channels=1)
    image = torch.rand(1, 1, *[32] * (ndim - 1), size, requires_grad=True)
    output: Tensor = layers.eval()(image)[-1]
    output[..., output.shape[-1] // 2].sum().backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None
    seen = image.grad.flatten(0, -2).abs().sum(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 70


@pytest.mark.parametrize("ndim", [2, 3])
def test_each_scale_sees_half_of_the_one_before(ndim: int) -> None:
    small = partial(PatchDiscriminator, channels=2, num_layers_d=1)
    judges = MultiScalePatchGAN(ndim, 2, small, scales=3)
    image = torch.rand(1, 2, *[32] * ndim)
    scales = judges(image)
    assert [layers[0].shape[-1] for layers in scales] == [16, 8, 4]
    pool = nn.functional.avg_pool2d if ndim == 2 else nn.functional.avg_pool3d
    half = pool(image, 3, 2, 1, count_include_pad=False)
    judges.eval()
    for found, expected in zip(judges(image)[1], judges.discriminators[1](half), strict=True):
        torch.testing.assert_close(found, expected)
    flat = judges(torch.ones_like(image))  # at the border as within
    assert judges.pool(torch.ones_like(image)).eq(1).all()
    assert len(flat) == 3
