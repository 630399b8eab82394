"""Element-wise losses with weights: their own values by hand, and what a weight of 0 means."""

import math

import pytest
import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.weighted import Weighted, weighted_mean
from im2im_zoo.recipe.components import Component, build_component

SPACES = [(2, 3), (2, 3, 2)]


def weighted(path: str, **kwargs: object) -> nn.Module:
    """As a recipe names it."""
    inner = {"callable": path, "kwargs": {"reduction": "none", **kwargs}}
    loss = Component(callable="im2im_zoo.losses.weighted.Weighted", kwargs={"loss": inner})
    built: nn.Module = build_component(loss, "framework.kwargs.loss")
    return built


def image(*values: float) -> Tensor:
    """(1, 1, 1, x)."""
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


P = 1 / (1 + math.exp(-1))  # of logit 1


@pytest.mark.parametrize(
    ("path", "kwargs", "values"),
    [
        ("torch.nn.MSELoss", {}, (4.0, 0.25)),
        ("torch.nn.L1Loss", {}, (2.0, 0.5)),
        ("torch.nn.SmoothL1Loss", {"beta": 1.0}, (1.5, 0.125)),
        ("torch.nn.HuberLoss", {"delta": 0.5}, (0.5 * (2 - 0.25), 0.125)),
    ],
)
def test_regression_losses_are_averaged_by_weight(
    path: str, kwargs: dict[str, float], values: tuple[float, float]
) -> None:
    loss = weighted(path, **kwargs)
    prediction, target = image(3.0, 0.5), image(1.0, 0.0)
    assert loss(prediction, target).item() == pytest.approx(sum(values) / 2)
    assert loss(prediction, target, image(1.0, 3.0)).item() == pytest.approx((values[0] + 3 * values[1]) / 4)


@pytest.mark.parametrize(
    ("path", "kwargs", "values"),
    [
        ("torch.nn.BCEWithLogitsLoss", {}, (-math.log(P), -math.log(1 - P))),
        # (1 - p) ** 2 of the right class, the more the surer it is wrong.
        (
            "monai.losses.FocalLoss",
            {"gamma": 2.0},
            (-((1 - P) ** 2) * math.log(P), -(P**2) * math.log(1 - P)),
        ),
    ],
)
def test_classification_losses_of_one_class_take_logits(
    path: str, kwargs: dict[str, float], values: tuple[float, float]
) -> None:
    loss = weighted(path, **kwargs)
    prediction, target = image(1.0, 1.0), image(1.0, 0.0)
    assert loss(prediction, target).item() == pytest.approx(sum(values) / 2, rel=1e-6)
    assert loss(prediction, target, image(3.0, 1.0)).item() == pytest.approx(
        (3 * values[0] + values[1]) / 4, rel=1e-6
    )


@pytest.mark.parametrize("space", SPACES)
def test_cross_entropy_takes_class_numbers_or_one_hot_targets_and_weights_each_voxel_once(
    space: tuple[int, ...],
) -> None:
    loss = weighted("torch.nn.CrossEntropyLoss")
    logits = torch.randn(2, 3, *space, generator=torch.Generator().manual_seed(0))
    numbers = torch.randint(3, (2, 1, *space), generator=torch.Generator().manual_seed(1))
    weight = torch.rand(2, 1, *space, generator=torch.Generator().manual_seed(2))
    each = nn.functional.cross_entropy(logits, numbers[:, 0], reduction="none")
    expected = (each * weight[:, 0]).sum() / weight.sum()
    hot = nn.functional.one_hot(numbers[:, 0], 3).movedim(-1, 1).float()
    assert torch.allclose(loss(logits, numbers.float(), weight), expected)
    assert torch.allclose(loss(logits, hot, weight), expected)
    assert torch.allclose(loss(logits, numbers.float()), each.mean())


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_voxel_of_weight_0_changes_nothing_and_has_no_gradient(
    space: tuple[int, ...], channels: int
) -> None:
    loss = weighted("torch.nn.MSELoss")
    weight = torch.ones(2, 1, *space)
    weight[..., 0] = 0
    prediction = torch.randn(2, channels, *space, requires_grad=True)
    target = torch.zeros(2, channels, *space)
    other = target.clone()
    other[..., 0] = 1e3
    assert loss(prediction, target, weight).item() == loss(prediction, other, weight).item()
    loss(prediction, other, weight).backward()
    assert prediction.grad is not None
    assert torch.all(prediction.grad[..., 0] == 0)
    assert torch.all(prediction.grad[..., 1:] != 0)


def test_a_batch_that_does_not_count_at_all_has_loss_0_and_no_gradient() -> None:
    prediction = torch.randn(1, 1, 4, 4, requires_grad=True)
    loss = Weighted(nn.L1Loss(reduction="none"))(prediction, torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert prediction.grad is not None
    assert torch.all(prediction.grad == 0)


def test_the_mean_of_a_large_volume_in_half_precision_is_finite_and_right() -> None:
    values = torch.full((1, 1, 64, 64, 64), 3.0, dtype=torch.float16)
    assert weighted_mean(values, torch.ones(1, 1, 64, 64, 64)).item() == pytest.approx(3.0)


def test_a_loss_that_takes_the_mean_itself_is_refused_with_what_to_say() -> None:
    with pytest.raises(TrainingError, match="reduction: none"):
        Weighted(nn.MSELoss())(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def test_weights_of_another_size_are_refused_with_both_shapes() -> None:
    with pytest.raises(TrainingError, match=r"\(1, 1, 3, 3\) do not fit .* \(1, 1, 2, 2\)"):
        Weighted(nn.MSELoss(reduction="none"))(
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 3, 3)
        )


def test_a_target_of_other_channels_is_refused_and_not_broadcast() -> None:
    with pytest.raises(TrainingError, match=r"\(1, 1, 2, 2\) with a target of shape \(1, 2, 2, 2\)"):
        Weighted(nn.MSELoss(reduction="none"))(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2))


@pytest.mark.parametrize("value", [0.5, 3.0, -1.0])
def test_a_target_that_holds_no_class_numbers_is_refused_with_its_range(value: float) -> None:
    target = torch.zeros(1, 1, 2, 2)
    target[..., 0, 0] = value
    with pytest.raises(TrainingError, match=r"class numbers from 0 to 2; it holds values from"):
        Weighted(nn.MSELoss(reduction="none"))(torch.zeros(1, 3, 2, 2), target)
