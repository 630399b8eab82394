"""pix2pixHD: feature matching on worked numbers, scales, and who learns from what."""

from functools import partial
from typing import Any

import pytest
import torch
from adversarial_for_tests import batches, convolution, copies, fit, sgd, small_gan, still
from test_pix2pix import WhoLearns
from torch import nn
from torch.nn import functional as F

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.pix2pixhd import Pix2PixHD, feature_matching, multi_scale
from im2im_zoo.networks.patchgan import MultiScalePatchGAN

SMALL = partial(MultiScalePatchGAN, discriminator=small_gan, scales=2)


def framework(ndim: int = 2, **kwargs: Any) -> Pix2PixHD:
    torch.manual_seed(0)
    defaults = {"discriminator": SMALL, "optimizer": sgd, "discriminator_optimizer": sgd}
    return Pix2PixHD(convolution(ndim), **defaults | kwargs)


def layers(*values: float) -> list[torch.Tensor]:
    """Outputs of layers that get smaller, each of one value."""
    return [torch.full((1, 2, 8 >> i, 8 >> i), value) for i, value in enumerate(values)]


def test_feature_matching_is_the_mean_difference_of_each_layer_of_each_scale() -> None:
    real = [layers(1, 2, 9), layers(0, 0, 9)]
    fake = [layers(1.5, 4, -9), layers(1, -3, -9)]
    # Two layers matched of each of two scales, the judgement not: 4 / 2 / 2 * (0.5 + 2 + 1 + 3).
    assert float(feature_matching(real, fake)) == pytest.approx(6.5)
    assert float(feature_matching(real, real)) == 0


def test_features_of_real_images_are_not_learnt_from() -> None:
    real, fake = (torch.rand(1, 1, 4, 4, requires_grad=True) for _ in range(2))
    judged = torch.zeros(1)
    feature_matching([[real, judged]], [[fake, judged]]).backward()  # type: ignore[no-untyped-call]
    assert real.grad is None
    assert fake.grad is not None


def test_a_discriminator_without_features_is_refused() -> None:
    only = nn.Conv2d(2, 1, 4)
    with pytest.raises(ComponentError, match="no features to match"):
        fit(framework(discriminator=only), batches(2))


@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_logged_is_the_loss_of_the_paper(ndim: int) -> None:
    made, data = framework(ndim, optimizer=still, discriminator_optimizer=still), batches(ndim)
    metrics = fit(made, data).callback_metrics
    image, target = data[0]["input"], data[0]["target"]
    with torch.no_grad():
        fake = made.discriminator(torch.cat([image, made.network(image)], 1))
        real = made.discriminator(torch.cat([image, target], 1))
    gan = sum(F.mse_loss(f[-1], torch.ones_like(f[-1])) for f in fake)
    told = sum(
        0.5 * ((r[-1] - 1).square().mean() + f[-1].square().mean()) for r, f in zip(real, fake, strict=True)
    )
    features = sum(
        (a - b).abs().mean()
        for r, f in zip(real, fake, strict=True)
        for a, b in zip(r[:-1], f[:-1], strict=True)
    )
    assert float(metrics["train_gan"]) == pytest.approx(float(gan), rel=1e-5)
    assert float(metrics["d_loss"]) == pytest.approx(float(told), rel=1e-5)
    # One discriminator of one middle layer has two layers that are matched.
    assert float(metrics["train_loss"]) == pytest.approx(float(gan + 10 * 4 / 2 / 2 * features), rel=1e-5)


def test_each_step_is_learnt_from_by_one_network_only() -> None:
    who = WhoLearns()
    fit(framework(), batches(2, count=2), callbacks=[who])
    assert who.found == [{"network"}, {"discriminator"}] * 2


def test_features_are_matched_better_after_training() -> None:
    made, data = framework(discriminator_optimizer=still), batches(2)
    first = fit(made, data).callback_metrics
    last = fit(made, data, max_epochs=20).callback_metrics
    assert last["train_loss"] < 0.9 * first["train_loss"]
    assert last["train_features"] < first["train_features"]


def test_three_scales_of_70_voxels_are_the_default() -> None:
    discriminator = multi_scale(spatial_dims=2, in_channels=2)
    assert len(discriminator.discriminators) == 3  # type: ignore[arg-type]
    assert all(d.num_layers_d == 3 for d in discriminator.discriminators)  # type: ignore[union-attr]


def test_the_generator_is_exported_and_changes_by_training() -> None:
    made = framework()
    before = copies(made)
    fit(made, batches(2))
    assert made.exported_network() is made.network
    assert all(
        not torch.equal(before[name], weight) for name, weight in copies(made).items() if "weight" in name
    )
