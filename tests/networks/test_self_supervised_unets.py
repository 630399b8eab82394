"""The U-Nets of N2V2 and Self2Self: how they pool, convolve what is partly hidden, and average fixed passes."""

from typing import Any

import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks import Grid, receptive_field_radius
from im2im_zoo.networks.blur_pool_unet import BlurPoolUNet
from im2im_zoo.networks.self2self_unet import Self2SelfUNet


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_maximum_is_blurred_by_1_2_1_before_every_second_voxel_is_taken(ndim: int) -> None:
    image = torch.rand(1, 1, *[8] * ndim, dtype=torch.float64)
    largest = ndimage.maximum_filter(image[0, 0], 2, origin=-1, mode="nearest")  # of each voxel and the next
    for axis in range(ndim):
        largest = ndimage.correlate1d(largest, [0.25, 0.5, 0.25], axis=axis, mode="nearest")
    pooled = BlurPoolUNet(ndim, features=2).body.down(image)[0, 0]
    expected = torch.from_numpy(largest[(slice(None, None, 2),) * ndim])
    inner = (slice(1, -1),) * ndim
    torch.testing.assert_close(pooled[inner], expected[inner])
    assert pooled.shape == expected.shape


def test_a_flat_image_stays_flat_up_to_its_border() -> None:
    pooled = BlurPoolUNet(2, features=2).body.down(torch.full((1, 1, 8, 12), 3.0))
    assert torch.equal(pooled, torch.full((1, 1, 4, 6), 3.0))


@pytest.mark.parametrize(("first_skip", "skips"), [(False, [False, True]), (True, [True, True])])
def test_no_single_voxel_comes_through_the_first_level_unless_it_is_asked_for(
    first_skip: bool, skips: list[bool]
) -> None:
    network = BlurPoolUNet(2, features=2, first_skip=first_skip)
    assert [network.body.skips, network.body.below.skips] == skips


def test_self2self_has_the_layers_of_the_paper() -> None:
    network = Self2SelfUNet(channels=3)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    # Six blocks and one in front of them; four blocks of two, and one of three.
    assert len(convolutions) == 7 + 4 * 2 + 3
    decoder = [(c.in_channels, c.out_channels) for c in convolutions[7:]]
    assert decoder == [(96, 96), (96, 96), *3 * [(144, 96), (96, 96)], (99, 64), (64, 32), (32, 3)]
    assert {c.out_channels for c in convolutions[:7]} == {48}


def test_a_partial_convolution_makes_up_for_what_is_hidden_and_outside() -> None:
    torch.manual_seed(0)
    layer = Self2SelfUNet(channels=1, features=3, depth=1, passes=4, period=2).encoder[0]
    nn.init.constant_(layer.bias, 0.5)
    image, mask = torch.full((1, 1, 6, 6), 2.0), (torch.rand(1, 1, 6, 6) > 0.4).float()
    mask[..., :3, :3] = 0
    with torch.no_grad():
        nn.init.constant_(layer.conv.weight, 1 / 9)
        feature, known = layer(image, mask)
    # A mean of what is seen, whatever part of the window that is.
    seen = known.bool().expand_as(feature)
    torch.testing.assert_close(feature[seen], torch.full_like(feature[seen], 2.5))
    assert (feature[~seen] == 0).all()
    assert not known[0, 0, :2, :2].any()
    assert torch.equal(known, F.max_pool2d(mask, 3, stride=1, padding=1))


@pytest.mark.parametrize("ndim", [2, 3])
def test_each_voxel_is_hidden_and_each_feature_dropped_in_the_same_number_of_passes(ndim: int) -> None:
    network = Self2SelfUNet(ndim, channels=2, depth=2, features=3, passes=10, period=8)
    kept = [network.seen, *(m.kept for m in network.modules() if hasattr(m, "kept"))]
    assert len(kept) == 1 + 2 + 3
    assert all((k.sum(dim=0) == 7).all() for k in kept)
    assert network.seen.shape == (10, 2, *[8] * ndim)
    assert not torch.equal(network.seen[:, 0], network.seen[:, 1])
    # All networks of these arguments have the same, whatever the seed of a training.
    again = Self2SelfUNet(ndim, channels=2, depth=2, features=3, passes=10, period=8)
    assert torch.equal(again.seen, network.seen)


@pytest.mark.parametrize("ndim", [2, 3])
def test_its_output_is_the_average_of_its_passes_and_the_same_each_time(ndim: int) -> None:
    network = Self2SelfUNet(ndim, depth=2, features=3, passes=4, period=4)
    image = torch.rand(2, 1, *[8] * ndim)
    with torch.no_grad():
        passes = [network.one_pass(image, network.mask(n, image), n) for n in range(4)]
        assert not torch.allclose(passes[0], passes[1])
        torch.testing.assert_close(network(image), torch.stack(passes).mean(dim=0))
        assert torch.equal(network(image), network.eval()(image))


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_predicted_of_a_voxel_that_is_not_seen_does_not_depend_on_its_value(ndim: int) -> None:
    torch.manual_seed(0)
    network = Self2SelfUNet(ndim, channels=2, depth=2, features=6, passes=4, period=4)
    image = torch.rand(1, 2, *[8] * ndim, requires_grad=True)
    mask = (torch.rand(image.shape) > 0.3).float()
    prediction = network.one_pass(image, mask)
    for place in torch.nonzero(mask == 0)[:12]:
        at = tuple(place.tolist())
        [gradient] = torch.autograd.grad(prediction[at], image, retain_graph=True)
        assert (gradient[mask == 0] == 0).all()
        assert gradient.abs().sum() > 0


def test_tiles_that_begin_at_a_multiple_of_the_period_give_what_the_whole_gives() -> None:
    torch.manual_seed(0)
    network = Self2SelfUNet(2, depth=2, features=3, passes=3, period=8).eval()
    reach = receptive_field_radius(network, 1, Grid((8, 8), (8, 8)))
    assert reach is not None
    start, size = 16, 8 * (2 * reach[1] // 8 + 3)
    image = torch.rand(1, 1, 16, start + size + 40)
    with torch.no_grad():
        whole, tile = network(image), network(image[..., start : start + size])
        shifted = network(image[..., start + 4 : start + 4 + size])
    kept = slice(reach[1], size - reach[1])
    torch.testing.assert_close(tile[..., kept], whole[..., start:][..., kept], atol=1e-6, rtol=0)
    assert not torch.allclose(shifted[..., kept], whole[..., start + 4 :][..., kept], atol=1e-3)


@pytest.mark.parametrize(
    ("network", "arguments", "message"),
    [
        (BlurPoolUNet, {"spatial_dims": 1}, "spatial_dims is 1"),
        (BlurPoolUNet, {"depth": 0}, "depth is 0"),
        (Self2SelfUNet, {"spatial_dims": 4}, "spatial_dims is 4"),
        (Self2SelfUNet, {"depth": 5, "period": 16}, r"depth is 5 and period 16; .* multiple of 2 \*\* depth"),
        (Self2SelfUNet, {"masked": 0.0}, "masked is 0.0 .* above 0"),
        (Self2SelfUNet, {"passes": 1}, "in 1 passes, .* give more passes"),
    ],
)
def test_arguments_that_make_no_network_are_refused(
    network: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ComponentError, match=message):
        network(**arguments)
