"""Soft Dice: by hand, against MONAI's where both can be asked, and with voxels that do not count."""

import pytest
import torch
from monai.losses import DiceLoss
from torch import Tensor

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.dice import SoftDice

SPACES = [(4, 5), (3, 4, 5)]


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_dice_of_four_voxels_is_that_by_hand() -> None:
    prediction = torch.tensor([0.8, 0.6, 0.5, 0.1]).reshape(1, 1, 2, 2)
    target = torch.tensor([1.0, 1.0, 0.0, 0.0]).reshape(1, 1, 2, 2)
    assert SoftDice(smooth=0)(prediction, target).item() == pytest.approx(1 - 2 * 1.4 / (2.0 + 2.0))
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    # Overlap 0.8 + 2 * 0.6; predicted 0.8 + 2 * 0.6 + 0.1; wanted 1 + 2.
    assert SoftDice(smooth=0)(prediction, target, weight).item() == pytest.approx(1 - 2 * 2.0 / (2.1 + 3.0))


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize(
    ("channels", "kwargs"),
    [
        (1, {"sigmoid": True}),
        (3, {"softmax": True}),
        (3, {"softmax": True, "include_background": False}),
        (2, {}),
    ],
)
def test_without_weights_it_is_monais(
    space: tuple[int, ...], batch: bool, channels: int, kwargs: dict[str, bool]
) -> None:
    prediction = random(0, 2, channels, *space)
    target = (random(1, 2, channels, *space) > 0.5).double()
    ours = SoftDice(batch=batch, **kwargs)(prediction, target)
    assert ours.item() == pytest.approx(DiceLoss(batch=batch, **kwargs)(prediction, target).item(), abs=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_a_target_of_class_numbers_is_that_of_one_hot(space: tuple[int, ...]) -> None:
    prediction = random(0, 2, 3, *space)
    numbers = torch.randint(3, (2, 1, *space), generator=torch.Generator().manual_seed(1)).double()
    expected = DiceLoss(softmax=True, to_onehot_y=True)(prediction, numbers).item()
    assert SoftDice(softmax=True)(prediction, numbers).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("space", SPACES)
def test_voxels_of_weight_0_are_as_if_cut_off_and_have_no_gradient(space: tuple[int, ...]) -> None:
    loss = SoftDice(sigmoid=True)
    logits = (random(0, 2, 1, *space) - 0.5).requires_grad_()
    target = (random(1, 2, 1, *space) > 0.5).double()
    weight = torch.ones_like(target)
    weight[..., -2:] = 0
    weighted = loss(logits, target, weight)
    assert weighted.item() == pytest.approx(loss(logits[..., :-2], target[..., :-2]).item())
    weighted.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[..., -2:] == 0)
    assert torch.all(logits.grad[..., :-2] != 0)


def test_a_perfect_and_an_empty_match_have_loss_0_and_a_disjoint_one_1() -> None:
    whole, none = torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    loss = SoftDice()
    assert loss(whole, whole).item() == pytest.approx(0)
    assert loss(none, none).item() == pytest.approx(0)
    assert loss(none, whole).item() == pytest.approx(1, abs=1e-5)
    assert loss(none, whole, none).item() == pytest.approx(0)


def test_weights_with_a_channel_for_each_class_go_without_the_background_as_the_classes_do() -> None:
    prediction, weight = random(0, 1, 3, 4, 5), random(1, 1, 3, 4, 5)
    target = (random(2, 1, 3, 4, 5) > 0.5).double()
    whole = SoftDice(include_background=False)(prediction, target, weight)
    assert whole.item() == pytest.approx(SoftDice()(prediction[:, 1:], target[:, 1:], weight[:, 1:]).item())


def test_its_gradient_is_that_of_finite_differences() -> None:
    logits = (random(0, 1, 2, 2, 3) - 0.5).requires_grad_()
    target, weight = (random(1, 1, 2, 2, 3) > 0.5).double(), random(2, 1, 1, 2, 3)
    assert torch.autograd.gradcheck(lambda x: SoftDice(softmax=True)(x, target, weight), (logits,))


def test_two_activations_are_refused() -> None:
    with pytest.raises(TrainingError, match="sigmoid and softmax are both true"):
        SoftDice(sigmoid=True, softmax=True)
