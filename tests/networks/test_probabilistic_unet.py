"""The Probabilistic U-Net as it predicts: its means and variances, how far it reaches, and that it exports."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import fnet, reach_of
from torch import Tensor, nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks import Grid, receptive_field_radius, step_grid
from im2im_zoo.networks.probabilistic_unet import ProbabilisticUNet
from im2im_zoo.packaging.export.weights import FORMATS, write_weights
from im2im_zoo.recipe.components import Component

NDIM = pytest.mark.parametrize("ndim", [2, 3])
SMALL: dict[str, Any] = {"depth": 1, "features": 4, "latents": 3, "samples": 8}


def network_of(ndim: int, **kwargs: Any) -> ProbabilisticUNet:
    torch.manual_seed(0)
    network = ProbabilisticUNet(ndim, **SMALL | kwargs)
    nn.init.normal_(network.of_latent.weight)
    return network.eval()


def outputs(network: ProbabilisticUNet, image: Tensor, latents: Tensor) -> Tensor:
    return network.decode(network.trunk(image), latents)


@NDIM
@pytest.mark.parametrize("local", [True, False])
def test_it_gives_mean_and_variance_over_the_quantiles_of_its_prior(ndim: int, local: bool) -> None:
    network = network_of(ndim, local=local, out_channels=2)
    image = torch.randn(3, 1, *[4] * ndim)
    mean, deviation = network.prior(image)
    assert mean.shape == (3, 3, *[2 if local else 1] * ndim)
    each = torch.stack(
        [outputs(network, image, mean + deviation * q.reshape(1, 3, *[1] * ndim)) for q in network.quantiles]
    )
    expected = torch.cat([each.mean(0), each.var(0, unbiased=False)], 1)
    torch.testing.assert_close(network(image), expected)
    assert expected[:, 2:].min() > 0


def test_the_quantiles_are_of_a_standard_normal_distribution() -> None:
    quantiles = ProbabilisticUNet(2, features=2, depth=0, latents=2, samples=256).quantiles
    torch.testing.assert_close(quantiles.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(quantiles.T), torch.eye(2), atol=0.05, rtol=0)


def test_the_variance_of_a_local_prior_is_that_of_latents_that_are_independent() -> None:
    network, image = network_of(2, samples=256, activation="sigmoid"), torch.randn(1, 1, 8, 8)
    mean, deviation = network.prior(image)
    latents = mean + deviation * torch.randn(4000, *mean.shape[1:])
    each = torch.sigmoid(outputs(network, image, latents))
    found_mean, found_variance = network(image)[0]
    torch.testing.assert_close(found_mean, each.mean(0)[0], atol=0.01, rtol=0)
    torch.testing.assert_close(found_variance, each.var(0)[0], atol=0.003, rtol=0.1)


@NDIM
def test_a_class_probability_has_its_mean_and_all_of_them_sum_to_one(ndim: int) -> None:
    network = network_of(ndim, out_channels=3, activation="softmax")
    mean, variance = network(torch.randn(2, 1, *[4] * ndim)).chunk(2, 1)
    torch.testing.assert_close(mean.sum(1), torch.ones(2, *[4] * ndim))
    assert (variance <= mean * (1 - mean)).all()


@NDIM
def test_a_local_prior_reaches_no_further_than_the_unet_and_a_global_one_everywhere(ndim: int) -> None:
    grid = Grid((2,) * ndim, (2,) * ndim)
    assert receptive_field_radius(network_of(ndim), 1, grid) == (reach_of(fnet(1), 2),) * ndim
    assert receptive_field_radius(network_of(ndim, local=False), 1, grid) is None


@NDIM
def test_tiles_of_a_local_prior_give_what_the_whole_gives(ndim: int) -> None:
    network, image = network_of(ndim), torch.randn(1, 1, 48, *[4] * (ndim - 1))
    reach = -(-reach_of(fnet(1), 2) // 2) * 2
    whole, tile = network(image), network(image[:, :, 10 : 22 + 2 * reach])
    torch.testing.assert_close(tile[:, :, reach : 12 + reach], whole[:, :, 10 + reach : 22 + reach])


def test_each_weight_format_of_it_takes_several_sizes(tmp_path: Path) -> None:
    for local in (True, False):
        network = network_of(2, local=local, activation="sigmoid")
        kwargs = {"spatial_dims": 2, **SMALL, "local": local, "activation": "sigmoid"}
        component = Component(
            callable="im2im_zoo.networks.probabilistic_unet.ProbabilisticUNet", kwargs=kwargs
        )
        folder = tmp_path / str(local)
        folder.mkdir()
        grid = step_grid(network, 1, 2)
        assert grid == Grid((2, 2), (2, 2))
        weights = write_weights(
            network,
            folder,
            FORMATS,
            grid=grid,
            image=np.zeros((1, 1, 4, 4)),
            tensors=("input", "output"),
            architecture=component,
        )
        assert weights.left_out == {}
        assert max(weights.errors.values()) < 1e-5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"spatial_dims": 1}, "spatial_dims is 1"),
        ({"spatial_dims": 2, "samples": 1}, "needs 2 or more"),
        ({"spatial_dims": 2, "activation": "relu"}, "give sigmoid"),
    ],
)
def test_arguments_that_make_no_network_are_refused(kwargs: Any, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        ProbabilisticUNet(**kwargs)
