"""Training by diffusion: its loss where it is known, what it learns of a distribution, and that validation is repeatable."""

from functools import partial
from typing import Any

import pytest
import torch
from adversarial_for_tests import batches, fit, still
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError

from im2im_zoo.frameworks.diffusion import Diffusion
from im2im_zoo.networks.ddim import DDIM, timed_unet_ddim

NDIM = pytest.mark.parametrize("ndim", [2, 3])
UNLOGGED = pytest.mark.filterwarnings(r"ignore:.*self\.log")  # without a trainer


class Constant(nn.Module):
    """Gives one number, and keeps the times that it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(()))
        self.times: list[int] = []

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        self.times += times.tolist()
        return self.value.expand(image[:, :1].shape)


class Voxelwise(nn.Module):
    """Of each voxel by itself, with the time as a further channel."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 64, 1), nn.SiLU(), nn.Conv2d(64, 64, 1), nn.SiLU(), nn.Conv2d(64, 1, 1))  # fmt: skip

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        time = (times.float() / 1000).reshape(-1, 1, 1, 1).expand(image[:, :1].shape)
        output: Tensor = self.layers(torch.cat([image, time], 1))
        return output


def framework(ndim: int, *, optimizer: Any = still, metrics: Any = None, **kwargs: Any) -> Diffusion:
    made = {"steps": 2, "samples": 2, "period": 4, "limits": [-9, 9], "variance": True} | kwargs
    return Diffusion(DDIM(Constant(), ndim, **made), optimizer=optimizer, metrics=metrics)


@NDIM
@UNLOGGED
def test_the_loss_of_a_denoiser_that_gives_zero_is_the_mean_square_of_what_it_has_to_give(ndim: int) -> None:
    torch.manual_seed(0)
    batch = batches(ndim, size=64 if ndim == 2 else 20)[0]
    square = batch["target"].square().flatten(1).mean(1)
    found = {}
    for prediction in ("image", "noise", "velocity"):
        made = framework(ndim, prediction=prediction)
        found[prediction] = made.training_step(batch, 0).item()
    assert found["image"] == pytest.approx(float(square.mean()))
    # The mean of 8192 or 16000 squares of noise, whose standard deviation is 0.016 or 0.011.
    assert found["noise"] == pytest.approx(1, abs=0.1)
    # Of the velocity, the noise by the level and the image by the rest.
    level = made.network.levels[made.network.denoiser.times]
    assert found["velocity"] == pytest.approx(float((level + (1 - level) * square).mean()), abs=0.2)


@UNLOGGED
def test_the_times_of_a_batch_are_evenly_apart_and_others_each_time() -> None:
    torch.manual_seed(0)
    made = framework(2)
    batch = {key: value.repeat(4, 1, 1, 1) for key, value in batches(2)[0].items()}
    offsets = []
    for _ in range(100):
        made.training_step(batch, 0)
        times, made.network.denoiser.times = torch.tensor(made.network.denoiser.times), []
        assert (times.diff() == 125).all()
        offsets.append(int(times[0]))
    # Of 100 draws from 0 to 124 all are 40 or more, or all 85 or less, once in 10**16 times.
    assert min(offsets) < 40
    assert max(offsets) > 85


@UNLOGGED
def test_what_has_no_cost_does_not_count() -> None:
    batch = batches(2)[0]
    batch["cost"] = torch.ones_like(batch["input"])
    batch["cost"][..., 8:] = 0
    losses = []
    for wrong in (0.0, 1e3):
        batch["target"][..., 8:] += wrong
        torch.manual_seed(0)
        losses.append(framework(2, prediction="image").training_step(batch, 0).item())
    assert losses[0] == losses[1] == pytest.approx(float(batch["target"][..., :8].square().mean()))


@NDIM
def test_metrics_see_the_mean_of_the_samples(ndim: int) -> None:
    data = batches(ndim, count=2)
    made = framework(ndim, prediction="image", limits=[0, 9], metrics={"error": MeanAbsoluteError()})
    metrics = fit(made, data).callback_metrics
    # Every sample is 0.
    expected = torch.cat([batch["target"] for batch in data]).mean()
    torch.testing.assert_close(metrics["val_error"], expected)
    torch.testing.assert_close(metrics["val_loss"], torch.stack([b["target"].square().mean() for b in data]).mean())  # fmt: skip


def test_validation_takes_the_same_noise_in_each_epoch() -> None:
    losses = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        losses.append(float(fit(framework(2, prediction="noise"), batches(2)).callback_metrics["val_loss"]))
    assert losses[0] == losses[1] != 1


@UNLOGGED
def test_validation_takes_none_of_the_trainings_random_numbers() -> None:
    before = torch.get_rng_state()
    framework(2).validation_step(batches(2)[0], 0)
    assert torch.equal(torch.get_rng_state(), before)


@NDIM
def test_a_unet_learns_a_batch(ndim: int) -> None:
    torch.manual_seed(0)
    network = timed_unet_ddim(ndim, 1, 1, features=[8, 16], steps=1, samples=2, period=4, variance=True)
    data = batches(ndim, size=16 if ndim == 2 else 12)
    made = Diffusion(network, optimizer=partial(torch.optim.Adam, lr=1e-2))
    first = fit(made, data).callback_metrics["val_loss"]
    last = fit(made, data, max_epochs=50).callback_metrics["val_loss"]
    assert last < 0.8 * first, "of ten seeds 0.27 to 0.61 times"
    assert made.exported_network()(data[0]["input"]).shape[1] == made.output_channels(1) == 2


@UNLOGGED
def test_samples_have_the_mean_and_the_variance_of_what_was_learnt() -> None:
    torch.manual_seed(0)
    made = Diffusion(DDIM(Voxelwise(), 2, steps=20, samples=16, period=32, variance=True))
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for _ in range(300):
        image = torch.randn(8, 1, 16, 16)
        # The first half of the conditions says more of the target than the second.
        spread = torch.where(image > 0, 0.2, 0.8)
        batch = {"input": image, "target": image + spread * torch.randn_like(image)}
        optimizer.zero_grad()
        made.training_step(batch, 0).backward()
        optimizer.step()
        schedule.step()
    image = torch.tensor([1.0, -1.0]).repeat_interleave(16)[None, None, None].expand(1, 1, 32, 32)
    with torch.inference_mode():
        mean, variance = made.exported_network()(image)[0]
    found = [(float(part.mean()), float(spread.mean().sqrt())) for part, spread in zip(mean.split(16, 1), variance.split(16, 1), strict=True)]  # fmt: skip
    # Of ten seeds, the means are 0.02 and the deviations 0.04 away at most.
    assert found[0] == pytest.approx((1, 0.2), abs=0.08)
    assert found[1] == pytest.approx((-1, 0.8), abs=0.12)


def test_the_exported_network_has_the_targets_channels_and_their_variances() -> None:
    assert framework(2).output_channels(3) == 6
    assert framework(2, variance=False).output_channels(3) == 3
