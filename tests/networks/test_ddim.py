"""Sampling by DDIM: its formulas against the papers and MONAI, and that a tile's samples are those of the whole."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from architectures import CONV, DOUBLE, reach_of
from known_networks import Layer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks import Grid, receptive_field_radius, step_grid
from im2im_zoo.networks.ddim import DDIM, ddim_step, signal_levels, timed_unet_ddim
from im2im_zoo.networks.timed_unet import ChannelNorm, TimedUNet
from im2im_zoo.packaging.export.weights import FORMATS, write_weights
from im2im_zoo.recipe.components import Component

NDIM = pytest.mark.parametrize("ndim", [2, 3])
narrow = partial(
    timed_unet_ddim, in_channels=1, out_channels=1, features=[8, 8], steps=2, samples=2, period=4
)


def random_network(ndim: int, **kwargs: Any) -> DDIM:
    """With weights everywhere, also where a network starts with zeros."""
    torch.manual_seed(0)
    network = narrow(ndim, **kwargs)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


class Knows(nn.Module):
    """Gives what a perfect denoiser would, as the image is the condition itself, or Gaussian around it.

    The expectation of a clean x ~ N(condition, deviation²) given sqrt(a) x + sqrt(1 - a) noise is that of two Gaussians.
    """

    def __init__(self, levels: Tensor, prediction: str, deviation: float = 0.0) -> None:
        super().__init__()
        self.levels, self.prediction, self.deviation = levels, prediction, deviation

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        noisy, condition = image.double().chunk(2, 1)
        a = self.levels[times].reshape(-1, *[1] * (image.ndim - 1))
        spread = self.deviation**2
        gain = a.sqrt() * spread / (a * spread + 1 - a)
        clean = condition + gain * (noisy - a.sqrt() * condition)
        noise = (noisy - a.sqrt() * clean) / (1 - a).sqrt()
        velocity = a.sqrt() * noise - (1 - a).sqrt() * clean
        return {"image": clean, "noise": noise, "velocity": velocity}[self.prediction].float()


class Smooth(nn.Module):
    """A convolution, which takes images of any size."""

    def __init__(self, ndim: int) -> None:
        super().__init__()
        self.convolution = (nn.Conv2d if ndim == 2 else nn.Conv3d)(2, 1, 3, padding=1)

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        output: Tensor = self.convolution(image)
        return output


def test_the_levels_are_the_products_of_the_papers() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    np.testing.assert_allclose(signal_levels("linear", 1000), np.cumprod(1 - betas), rtol=1e-9)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(signal_levels("cosine", 1000)[:-1], (f[1:] / f[0])[:-1], rtol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear_beta"), ("cosine", "cosine")])
def test_the_levels_are_those_of_monai(ours: Any, theirs: str) -> None:
    scheduler = DDPMScheduler(1000, schedule=theirs)
    torch.testing.assert_close(
        signal_levels(ours, 1000).float(), scheduler.alphas_cumprod, rtol=1e-3, atol=1e-6
    )


@NDIM
def test_a_step_is_equation_12_of_the_paper(ndim: int) -> None:
    noise, noisy = torch.randn(2, 1, 1, *[4] * ndim)
    a, b = 0.3, 0.7
    clean = (noisy - (1 - a) ** 0.5 * noise) / a**0.5
    expected = b**0.5 * (noisy - (1 - a) ** 0.5 * noise) / a**0.5 + (1 - b) ** 0.5 * noise
    torch.testing.assert_close(ddim_step(noisy, clean, a, b), expected)


@pytest.mark.parametrize("prediction", ["noise", "velocity", "image"])
def test_a_step_is_that_of_monai(prediction: Any) -> None:
    scheduler = DDIMScheduler(1000, clip_sample=False, prediction_type={"noise": "epsilon", "velocity": "v_prediction", "image": "sample"}[prediction])  # fmt: skip
    scheduler.set_timesteps(10)
    output, noisy = torch.randn(2, 1, 1, 4, 4)
    expected, clean = scheduler.step(output, 500, noisy)
    network = DDIM(nn.Identity(), 2, prediction=prediction, schedule="linear", limits=[-1e9, 1e9])
    levels = network.levels.tolist()
    torch.testing.assert_close(network._clean(output, noisy, levels[500]), clean)
    torch.testing.assert_close(ddim_step(noisy, clean, levels[500], levels[400]), expected)


def test_steps_go_from_noise_to_the_image_in_equal_parts() -> None:
    network = DDIM(nn.Identity(), 2, steps=4)
    assert network.step_times == [999, 749, 499, 249]
    assert network.step_levels[0] < 1e-6
    assert network.step_levels[-1] == 1


@NDIM
@pytest.mark.parametrize("prediction", ["noise", "velocity", "image"])
def test_a_denoiser_that_knows_the_image_gives_it_by_any_number_of_steps(ndim: int, prediction: Any) -> None:
    image = torch.randn(2, 1, *[8] * ndim)
    for steps in (1, 3):
        # A schedule that keeps something of the image, or nothing could be predicted from the noise.
        network = DDIM(nn.Identity(), ndim, steps=steps, samples=2, period=4, prediction=prediction, schedule="linear", limits=[-9, 9])  # fmt: skip
        network.denoiser = Knows(network.levels.double(), prediction)
        torch.testing.assert_close(network(image), image, rtol=1e-3, atol=1e-3)


def test_many_steps_sample_the_distribution_of_a_denoiser_that_knows_it() -> None:
    levels = signal_levels("cosine", 1000)
    network = DDIM(Knows(levels, "velocity", 0.5), 2, steps=200, samples=2, period=64)
    samples = network.sample(torch.full((1, 1, 64, 64), 3.0))
    # The flow of a Gaussian maps the noise itself: mean + deviation * noise.
    expected = 3 + 0.5 * network.noise
    torch.testing.assert_close(samples[:, 0], expected, atol=0.02, rtol=0)


@NDIM
def test_the_mean_and_the_variance_are_those_of_the_samples(ndim: int) -> None:
    network, image = random_network(ndim, variance=True, samples=3), torch.randn(2, 1, *[8] * ndim)
    mean, variance = network(image).chunk(2, 1)
    samples = network.sample(image)
    torch.testing.assert_close(mean, samples.mean(0))
    torch.testing.assert_close(variance, samples.var(0))
    assert variance.min() > 0


def test_the_noise_is_fixed_and_another_seed_is_other_noise() -> None:
    network, image = random_network(2), torch.randn(1, 1, 8, 8)
    first = network(image)
    torch.rand(1)
    assert torch.equal(network(image), first)
    assert torch.equal(random_network(2)(image), first)
    assert not torch.allclose(random_network(2, seed=1)(image), first)


@NDIM
def test_an_image_gets_the_same_samples_in_any_batch(ndim: int) -> None:
    network, images = random_network(ndim), torch.randn(3, 1, *[8] * ndim)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


@NDIM
def test_a_tile_at_a_multiple_of_the_period_gives_what_the_whole_gives(ndim: int) -> None:
    network = random_network(ndim, variance=True)
    [reach] = set(receptive_field_radius(network, 1, Grid((4,) * ndim, (4,) * ndim)) or ())
    image = torch.randn(1, 1, 4 * reach + 16, *[8] * (ndim - 1))
    start = reach // 4 * 4 - 4
    whole = network(image)[:, :, start + reach : start + 2 * reach]
    tile = network(image[:, :, start : start + -(-3 * reach // 4) * 4])[:, :, reach : 2 * reach]
    torch.testing.assert_close(tile, whole, rtol=1e-5, atol=1e-5)
    beside = network(image[:, :, start + 2 : start + 2 + -(-3 * reach // 4) * 4])[:, :, reach : 2 * reach]
    elsewhere = network(image)[:, :, start + 2 + reach : start + 2 + 2 * reach]
    assert not torch.allclose(beside, elsewhere, rtol=1e-2, atol=1e-2), (
        "a tile that begins elsewhere does not"
    )


@NDIM
def test_the_grid_is_the_period_of_the_noise(ndim: int) -> None:
    network = DDIM(Smooth(ndim), ndim, steps=2, samples=1, period=4).eval()
    assert step_grid(network, 1, ndim) == Grid((4,) * ndim, (4,) * ndim)


def test_a_period_may_differ_by_axis() -> None:
    image, network = torch.randn(1, 1, 6, 8, 16), random_network(3, period=[2, 4, 8])
    assert network(image).shape == image.shape
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        network(image.transpose(2, 4))


@NDIM
def test_each_step_reaches_once_as_far_as_the_unet(ndim: int) -> None:
    two = (CONV, CONV)
    unet = (CONV, *two, Layer(2, 2), *two, DOUBLE, *two, CONV)
    found = receptive_field_radius(random_network(ndim), 1, Grid((4,) * ndim, (4,) * ndim))
    assert found == (reach_of(2 * unet, 2),) * ndim


def test_each_weight_format_takes_several_sizes_and_refuses_others(tmp_path: Path) -> None:
    network = random_network(2, variance=True)
    kwargs = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "features": [8, 8],
        "steps": 2,
        "samples": 2,
    }
    component = Component(
        callable="im2im_zoo.networks.ddim.timed_unet_ddim", kwargs=kwargs | {"period": 4, "variance": True}
    )
    grid = Grid((4, 4), (4, 4))
    tensors = ("input", "output")
    weights = write_weights(network, tmp_path, FORMATS, grid=grid, image=np.zeros((1, 1, 4, 4)), tensors=tensors, architecture=component)  # fmt: skip
    assert weights.left_out == {}
    assert max(weights.errors.values()) < 1e-5
    wrong = np.zeros((1, 1, 10, 12), np.float32)
    with pytest.raises(Exception, match="mismatched dimensions"):
        onnxruntime.InferenceSession(weights.files["onnx"]).run(None, {"input": wrong})
    with pytest.raises(RuntimeError):
        torch.jit.load(weights.files["torchscript"])(torch.from_numpy(wrong))
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        network(torch.from_numpy(wrong))


@NDIM
def test_the_norm_is_of_each_voxel_alone(ndim: int) -> None:
    image = torch.randn(2, 5, *[3] * ndim)
    deviation = image.var(1, keepdim=True, unbiased=False).add(1e-5).sqrt()
    torch.testing.assert_close(ChannelNorm(5)(image), (image - image.mean(1, keepdim=True)) / deviation)


@NDIM
def test_the_unet_heeds_the_time(ndim: int) -> None:
    unet, image = random_network(ndim).denoiser, torch.randn(1, 2, *[4] * ndim).expand(2, *[-1] * (ndim + 1))
    early, late = unet(image, torch.tensor([10, 900]))
    assert not torch.allclose(early, late)
    torch.testing.assert_close(late[None], unet(image[1:], torch.tensor([900])))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"variance": True, "samples": 1}, "samples to 2 or more"),
        ({"steps": 0}, "give 1 to 1000"),
        ({"prediction": "noise"}, "give limits"),
        ({"period": [8]}, "one number of voxels, or 2"),
    ],
)
def test_arguments_that_make_no_sampler_are_refused_with_what_to_give(kwargs: Any, message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        DDIM(nn.Identity(), 2, **kwargs)


@pytest.mark.parametrize(
    ("dims", "features", "message"), [(1, [4], "spatial_dims is 1"), (2, [], "features")]
)
def test_arguments_that_make_no_unet_are_refused(dims: int, features: list[int], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        TimedUNet(dims, 2, 1, features)
