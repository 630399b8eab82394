"""pix2pix against its steps done by hand, and who learns from what."""

import copy
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from adversarial_for_tests import batches, convolution, copies, fit, sgd, small_gan, still
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.metrics import Pearson
from im2im_zoo.frameworks.pix2pix import Pix2Pix


def framework(ndim: int = 2, **kwargs: Any) -> Pix2Pix:
    torch.manual_seed(0)
    defaults = {"discriminator": small_gan, "optimizer": sgd, "discriminator_optimizer": sgd}
    return Pix2Pix(convolution(ndim), **defaults | kwargs)


class WhoLearns(pl.Callback):
    """Names of the networks that have gradients when each optimizer steps."""

    def __init__(self) -> None:
        self.found: list[set[str]] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any
    ) -> None:
        named = pl_module.named_parameters()
        self.found.append({name.split(".")[0] for name, p in named if p.grad is not None})


def by_hand(network: nn.Module, discriminator: nn.Module, image: Tensor, target: Tensor) -> None:
    """A step of each as section 3.3 of the paper says: D by half its objective, then G."""
    d_steps, g_steps = sgd(discriminator.parameters()), sgd(network.parameters())
    fake = network(image)
    real_judged = discriminator(torch.cat([image, target], 1))[-1]
    fake_judged = discriminator(torch.cat([image, fake.detach()], 1))[-1]
    ones, zeros = torch.ones_like(real_judged), torch.zeros_like(real_judged)
    bce = F.binary_cross_entropy_with_logits
    d_steps.zero_grad()
    (0.5 * (bce(real_judged, ones) + bce(fake_judged, zeros))).backward()
    d_steps.step()
    g_steps.zero_grad()
    judged = discriminator(torch.cat([image, fake], 1))[-1]
    (bce(judged, ones) + 100 * (fake - target).abs().mean()).backward()
    g_steps.step()


@pytest.mark.parametrize("ndim", [2, 3])
def test_steps_are_those_of_the_paper(ndim: int) -> None:
    made, data = framework(ndim), batches(ndim, count=2)
    expected = [copy.deepcopy(m) for m in (made.network, made.discriminator)]
    for batch in data:
        by_hand(*expected, batch["input"], batch["target"])
    fit(made, data)
    for found, hand in zip((made.network, made.discriminator), expected, strict=True):
        for name, weight in copies(hand).items():
            torch.testing.assert_close(copies(found)[name], weight, msg=name)


def test_each_step_is_learnt_from_by_one_network_only() -> None:
    who = WhoLearns()
    fit(framework(), batches(2, count=2), callbacks=[who])
    assert who.found == [{"discriminator"}, {"network"}] * 2


def test_what_is_logged_adds_up() -> None:
    metrics = fit(
        framework(reconstruction_weight=7.0, metrics={"pearson": Pearson()}), batches(2)
    ).callback_metrics
    total = metrics["train_gan"] + 7 * metrics["train_reconstruction"]
    assert float(metrics["train_loss"]) == pytest.approx(float(total))
    assert {"d_loss", "val_loss", "val_pearson"} <= set(metrics)


def test_the_generator_learns_to_reconstruct_and_the_discriminator_to_tell() -> None:
    # A rate of 0.01 is a step of 1 where the reconstruction weighs 100: it jumps to and fro.
    gently = partial(torch.optim.SGD, lr=0.001)
    made, data = framework(optimizer=gently, discriminator_optimizer=still), batches(2)
    first = fit(made, data).callback_metrics["train_reconstruction"]
    last = fit(made, data, max_epochs=10).callback_metrics["train_reconstruction"]
    assert last < 0.5 * first, "of ten seeds 0.19 to 0.28 times"
    made = framework(optimizer=still)
    first = fit(made, data).callback_metrics["d_loss"]
    last = fit(made, data, max_epochs=10).callback_metrics["d_loss"]
    assert last < 0.7 * first, "of ten seeds 0.37 to 0.45 times"


def test_voxels_without_cost_do_not_count_in_the_reconstruction() -> None:
    found = []
    for wrong in (0.0, 1e3):
        data = batches(2)
        data[0]["cost"] = torch.ones_like(data[0]["input"])
        data[0]["cost"][..., 8:] = 0
        data[0]["target"][..., 8:] += wrong
        metrics = fit(framework(optimizer=still, discriminator_optimizer=still), data).callback_metrics
        found.append((float(metrics["train_reconstruction"]), float(metrics["val_loss"])))
    assert found[0] == found[1]


def test_a_reconstruction_loss_of_another_kind_replaces_the_absolute_error() -> None:
    data, made = batches(2), framework(reconstruction=nn.MSELoss(), optimizer=still)
    metrics = fit(made, data).callback_metrics
    with torch.no_grad():
        expected = F.mse_loss(made.network(data[0]["input"]), data[0]["target"])
    assert float(metrics["train_reconstruction"]) == pytest.approx(float(expected))


@pytest.mark.parametrize("kind", ["vanilla", "least_squares", "hinge"])
def test_each_gan_loss_trains(kind: Any) -> None:
    made = framework(gan_loss=kind)
    before = copies(made)
    fit(made, batches(2))
    assert all(
        not torch.equal(before[name], weight) for name, weight in copies(made).items() if "weight" in name
    )


def test_the_generator_is_exported() -> None:
    made = framework()
    assert made.exported_network() is made.network


def test_a_reconstruction_that_heeds_no_cost_map_is_named_by_its_own_key() -> None:
    batch = batches(2)[0]
    batch["cost"] = torch.ones_like(batch["input"])
    with pytest.raises(
        TrainingError, match=r"framework\.kwargs\.reconstruction: L1Loss cannot weight voxels"
    ):
        framework(reconstruction=nn.L1Loss()).validation_step(batch, 0)
