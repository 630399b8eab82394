"""CycleGAN with generators that are known functions; its image pools; both directions."""

from functools import partial
from typing import Any

import pytest
import torch
from adversarial_for_tests import batches, convolution, copies, fit, sgd, small_gan, still
from test_pix2pix import WhoLearns
from torch import nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.cyclegan import CycleGAN, ImagePool


def framework(ndim: int = 2, network: nn.Module | None = None, **kwargs: Any) -> CycleGAN:
    torch.manual_seed(0)
    defaults = {
        "discriminator": small_gan,
        "backward_discriminator": small_gan,
        "optimizer": sgd,
        "discriminator_optimizer": sgd,
    }
    return CycleGAN(network or convolution(ndim), **defaults | kwargs)


def unpaired(ndim: int) -> list[dict[str, torch.Tensor]]:
    """Inputs of 2 everywhere and targets of 5, of which no two belong together."""
    shape = (2, 1, *[16] * ndim)
    return [{"input": torch.full(shape, 2.0), "target": torch.full(shape, 5.0)}]


@pytest.mark.parametrize("ndim", [2, 3])
def test_each_generator_is_asked_for_identity_on_what_it_makes(ndim: int) -> None:
    # Forward triples, backward halves and adds one: of inputs 2 and targets 5, every wrong wiring gives other numbers.
    known = {
        "network": convolution(ndim, 3.0),
        "backward_network": convolution(ndim, 0.5, 1.0),
        "optimizer": still,
    }
    metrics = fit(framework(ndim, **known), unpaired(ndim)).callback_metrics
    forward_of_targets, backward_of_inputs = abs(3 * 5 - 5), abs(0.5 * 2 + 1 - 2)
    assert float(metrics["train_identity"]) == pytest.approx(forward_of_targets + backward_of_inputs)
    there_and_back, back_and_there = abs(0.5 * (3 * 2) + 1 - 2), abs(3 * (0.5 * 5 + 1) - 5)
    assert float(metrics["train_cycle"]) == pytest.approx(there_and_back + back_and_there)
    total = metrics["train_gan"] + 10 * metrics["train_cycle"] + 5 * metrics["train_identity"]
    assert float(metrics["train_loss"]) == pytest.approx(float(total))
    assert float(metrics["val_loss"]) == pytest.approx(abs(3 * 2 - 5))


def test_each_discriminator_sees_the_images_of_its_side() -> None:
    seen: dict[str, list[float]] = {"input": [], "target": []}
    made = framework(network=convolution(2, 3.0), backward_network=convolution(2, 0.5, 1.0), optimizer=still)
    for side, discriminator in made.discriminators.items():
        discriminator.register_forward_pre_hook(
            lambda _, args, side=side: seen[side].append(float(args[0].detach().mean()))
        )
    fit(made, unpaired(2))
    # By turns: the generated one, while the generators step; then a real and the generated one.
    assert seen["target"] == pytest.approx([6, 5, 6])
    assert seen["input"] == pytest.approx([3.5, 2, 3.5])


def test_each_step_is_learnt_from_by_its_own_networks_only() -> None:
    who = WhoLearns()
    fit(framework(histogram_weight=1.0), batches(2, count=2), callbacks=[who])
    generators, discriminators = (
        {"network", "backward_network"},
        {"discriminators", "histogram_discriminators"},
    )
    assert who.found == [generators, discriminators] * 2


@pytest.mark.parametrize(
    ("part", "weights"),
    [
        ("train_cycle", {"identity_weight": 0.0}),
        ("train_identity", {"cycle_weight": 0.1, "identity_weight": 100.0}),
    ],
)
def test_training_lowers_what_it_is_told_to(part: str, weights: dict[str, float]) -> None:
    gently = partial(torch.optim.SGD, lr=0.001)
    made, data = framework(optimizer=gently, discriminator_optimizer=still, **weights), batches(2)
    before = fit(made, data).callback_metrics
    after = fit(made, data, max_epochs=20).callback_metrics
    assert after[part] < 0.8 * before[part]


def test_histograms_are_matched_by_discriminators_of_their_own() -> None:
    made = framework(histogram_weight=2.0, identity_weight=0.0)
    metrics = fit(made, batches(2)).callback_metrics
    assert "train_identity" not in metrics
    total = metrics["train_gan"] + 10 * metrics["train_cycle"] + 2 * metrics["train_histogram"]
    assert float(metrics["train_loss"]) == pytest.approx(float(total))
    assert not framework().histogram_discriminators


def test_the_way_back_is_a_copy_with_weights_of_its_own() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 1))
    backward = framework(network=network).backward_network
    weights, others = copies(network), copies(backward)
    assert weights.keys() == others.keys()
    assert not torch.equal(weights["0.weight"], others["0.weight"])
    assert not torch.equal(weights["2.weight"], others["2.weight"])


def test_other_channels_need_another_network_back_and_have_no_identity() -> None:
    there, back = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 1, 1)
    with pytest.raises(ComponentError, match=r"backward_network is needed: .* 1 channel\(s\) to 2"):
        framework(network=there)
    data = [{"input": torch.rand(2, 1, 16, 16), "target": torch.rand(2, 2, 16, 16)}]
    metrics = fit(framework(network=there, backward_network=back), data).callback_metrics
    assert "train_cycle" in metrics
    assert "train_identity" not in metrics
    with pytest.raises(ComponentError, match=r"direction: .*swap data\.input and data\.target"):
        framework(network=there, backward_network=back, direction="backward")


def test_either_direction_is_exported_and_validated() -> None:
    networks = {"network": convolution(2, 3.0), "backward_network": convolution(2, 0.5, 1.0)}
    made = framework(**networks)
    assert made.exported_network() is networks["network"]
    made = framework(**networks, direction="backward", optimizer=still)
    assert made.exported_network() is networks["backward_network"]
    assert float(fit(made, unpaired(2)).callback_metrics["val_loss"]) == pytest.approx(abs(0.5 * 5 + 1 - 2))


def image(value: int) -> torch.Tensor:
    return torch.full((1, 1, 2, 2), float(value))


def test_a_pool_returns_old_images_half_of_the_time_once_full_and_loses_none() -> None:
    torch.manual_seed(0)
    pool = ImagePool(50)
    returned = [int(pool.exchange(image(i))[0, 0, 0, 0]) for i in range(2050)]
    assert returned[:50] == list(range(50))
    old = [i for i in range(50, 2050) if returned[i] != i]
    assert len(old) == pytest.approx(1000, abs=4 * (2000 / 4) ** 0.5)
    assert len(pool.images) == 50
    assert set(returned) | {int(i[0, 0, 0]) for i in pool.images} == set(range(2050))
    ages = [i - returned[i] for i in old]
    assert sum(ages) / len(ages) == pytest.approx(100, rel=0.2)  # one of 50 is replaced every other time


def test_a_batch_is_exchanged_image_by_image() -> None:
    torch.manual_seed(0)
    pool = ImagePool(3)
    batch = torch.arange(8.0).reshape(8, 1, 1, 1, 1).expand(8, 1, 2, 2, 2)
    exchanged = pool.exchange(batch)
    assert exchanged.shape == batch.shape
    assert torch.equal(exchanged[:3], batch[:3])
    assert not torch.equal(exchanged, batch)


def test_no_pool_returns_the_new_images() -> None:
    pool = ImagePool(0)
    assert all(torch.equal(pool.exchange(image(i)), image(i)) for i in range(9))


def test_pools_are_in_the_checkpoint() -> None:
    made, data = framework(), batches(2, count=3)
    trainer = fit(made, data)
    checkpoint: dict[str, Any] = {}
    made.on_save_checkpoint(checkpoint)
    other = framework()
    other.trainer = trainer
    other.on_load_checkpoint(checkpoint)
    for side in ("input", "target"):
        assert len(other.pools[side].images) == 6
        for kept, loaded in zip(made.pools[side].images, other.pools[side].images, strict=True):
            assert torch.equal(kept, loaded)
