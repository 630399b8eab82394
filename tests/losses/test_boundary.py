"""The boundary loss: distances by hand, MONAI's where both can be asked, weights and voxels that are not cubes."""

import pytest
import torch
from monai import losses as monai_losses
from torch import Tensor

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.boundary import BoundaryLoss, signed_distance

SPACES = [(6, 7), (4, 5, 6)]


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def line(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_distances_of_a_line_are_those_by_hand() -> None:
    assert torch.equal(signed_distance(line(0, 0, 1, 1, 1, 0)), line(2, 1, 0, -1, 0, 1))


def test_loss_of_a_line_is_probability_times_distance() -> None:
    target = line(0, 0, 1, 1, 1, 0)
    probability = line(0.5, 0, 1, 0.5, 1, 0.25)
    total = 0.5 * 2 - 0.5 * 1 + 0.25 * 1
    assert BoundaryLoss()(probability, target).item() == pytest.approx(total / 6)
    assert BoundaryLoss()(probability, target, line(1, 1, 1, 2, 1, 0)).item() == pytest.approx(
        (0.5 * 2 - 2 * 0.5 * 1) / 6
    )


def test_distances_are_in_the_unit_of_the_voxel_sizes() -> None:
    target = torch.zeros(1, 1, 3, 2, 5)
    target[0, 0, 1, :, :2] = 1
    found = signed_distance(target, spacing=(5.0, 3.0, 2.0))
    assert found[0, 0, :, 0, 0].tolist() == [5, -(4 - 2), 5]  # two voxels of 2 to the right it ends
    assert found[0, 0, 1, 0].tolist() == [-2, 0, 2, 4, 6]
    assert found[0, 0, 0, 0, 2].item() == pytest.approx((25 + 4) ** 0.5)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(
    ("channels", "kwargs"),
    [(1, {"sigmoid": True}), (3, {"softmax": True}), (3, {"softmax": True, "include_background": False})],
)
def test_without_weights_it_is_monais(space: tuple[int, ...], channels: int, kwargs: dict[str, bool]) -> None:
    logits = random(0, 2, channels, *space)
    target = (random(1, 2, channels, *space) > 0.6).double()
    ours = BoundaryLoss(**kwargs)(logits, target).item()
    assert ours == pytest.approx(monai_losses.BoundaryLoss(**kwargs)(logits, target).item(), rel=1e-5)


@pytest.mark.parametrize("space", SPACES)
def test_the_target_itself_has_the_least_loss(space: tuple[int, ...]) -> None:
    target = torch.zeros(1, 1, *space)
    target[(..., *[slice(1, 4)] * len(space))] = 1
    best = BoundaryLoss()(target, target).item()
    assert best < 0
    others = [torch.zeros_like(target), torch.ones_like(target), target.roll(1, -1), target.roll(-1, 2)]
    assert all(BoundaryLoss()(other, target).item() > best for other in others)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_target_without_a_boundary_says_nothing(value: float) -> None:
    assert torch.all(signed_distance(torch.full((1, 1, 3, 3), value)) == 0)


@pytest.mark.parametrize("space", SPACES)
def test_voxels_of_weight_0_have_no_gradient(space: tuple[int, ...]) -> None:
    logits = random(0, 1, 1, *space).requires_grad_()
    target = torch.zeros(1, 1, *space)
    target[(..., *[slice(1, 3)] * len(space))] = 1
    weight = torch.ones_like(target)
    weight[..., -1] = 0
    BoundaryLoss(sigmoid=True)(logits, target, weight).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[..., -1] == 0)
    assert torch.any(logits.grad[..., :-1] != 0)


def test_its_gradient_is_that_of_finite_differences() -> None:
    logits = random(0, 1, 2, 3, 3).requires_grad_()
    target, weight = (random(1, 1, 2, 3, 3) > 0.5).double(), random(2, 1, 1, 3, 3)
    assert torch.autograd.gradcheck(lambda x: BoundaryLoss(softmax=True)(x, target, weight), (logits,))


def test_voxel_sizes_for_other_axes_are_refused() -> None:
    with pytest.raises(TrainingError, match="has 2 numbers, the target 3 space axes"):
        BoundaryLoss(spacing=(1.0, 1.0))(torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2))
