"""The gradient difference loss: the paper's formula by hand, in 2D and 3D, and its weights."""

import pytest
import torch
from torch import Tensor

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.gradient import GradientDifference

SPACES = [(4, 5), (3, 4, 5)]


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_loss_of_a_square_is_that_by_hand() -> None:
    target = torch.tensor([[0.0, 3.0], [1.0, 1.0]]).reshape(1, 1, 2, 2)
    prediction = torch.tensor([[0.0, 1.0], [0.0, 2.0]]).reshape(1, 1, 2, 2)
    # Steps along y: target 1, 2; prediction 0, 1. Along x: target 3, 0; prediction 1, 2.
    assert GradientDifference()(prediction, target).item() == pytest.approx((1 + 1) / 2 + (2 + 2) / 2)
    assert GradientDifference(alpha=2)(prediction, target).item() == pytest.approx((1 + 1) / 2 + (4 + 4) / 2)
    # The last voxel does not count: of two steps along each axis, one does.
    weight = torch.tensor([[1.0, 1.0], [1.0, 0.0]]).reshape(1, 1, 2, 2)
    assert GradientDifference()(prediction, target, weight).item() == pytest.approx(1 + 2)


@pytest.mark.parametrize("space", SPACES)
def test_a_blurred_image_costs_more_than_a_brighter_one(space: tuple[int, ...]) -> None:
    target = random(0, 2, 1, *space)
    blurred = (target + target.roll(1, -1) + target.roll(-1, -1)) / 3
    assert GradientDifference()(target + 5, target).item() == pytest.approx(0)
    assert GradientDifference()(blurred, target).item() > 0.05


def test_each_space_axis_is_added_and_one_of_a_single_voxel_is_not() -> None:
    target = random(0, 1, 1, 4, 5)
    prediction = random(1, 1, 1, 4, 5)
    loss = GradientDifference()
    flat = loss(prediction, target).item()
    assert loss(prediction[:, :, None], target[:, :, None]).item() == pytest.approx(flat)
    stack = [t[:, :, None].expand(1, 1, 3, 4, 5) for t in (prediction, target)]
    assert loss(*stack).item() == pytest.approx(flat)  # no steps along z
    assert loss(stack[0].cumsum(2), stack[1]).item() > flat


@pytest.mark.parametrize("space", SPACES)
def test_a_voxel_of_weight_0_changes_nothing_and_has_no_gradient(space: tuple[int, ...]) -> None:
    prediction = random(0, 2, 2, *space).requires_grad_()
    target = random(1, 2, 2, *space)
    weight = torch.ones(2, 1, *space, dtype=torch.float64)
    weight[..., 0] = 0
    other = target.clone()
    other[..., 0] = 100
    loss = GradientDifference()
    assert loss(prediction, other, weight).item() == pytest.approx(loss(prediction, target, weight).item())
    loss(prediction, other, weight).backward()
    assert prediction.grad is not None
    assert torch.all(prediction.grad[..., 0] == 0)
    assert torch.any(prediction.grad[..., 1:] != 0)


def test_its_gradient_is_that_of_finite_differences() -> None:
    prediction = random(0, 1, 1, 3, 3).requires_grad_()
    target, weight = random(1, 1, 1, 3, 3), random(2, 1, 1, 3, 3)
    assert torch.autograd.gradcheck(lambda x: GradientDifference(alpha=2)(x, target, weight), (prediction,))


def test_an_exponent_below_1_and_other_shapes_are_refused() -> None:
    with pytest.raises(TrainingError, match="give 1 or more"):
        GradientDifference(alpha=0.5)
    with pytest.raises(TrainingError, match="have to be the same"):
        GradientDifference()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2))
