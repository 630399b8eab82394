"""Lovász losses: the paper's properties, which fix them, and numbers by hand."""

from itertools import product

import pytest
import torch
from torch import Tensor

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.lovasz import LovaszHinge, LovaszSoftmax

SPACES = [(3, 4), (2, 3, 2)]
SURE = 40.0  # a logit whose probability is 1 in double precision, and whose opposite's is 0


def random(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def iou_loss(found: Tensor, wanted: Tensor, weight: Tensor | None = None) -> float:
    counts = torch.ones_like(wanted) if weight is None else weight
    union = (counts * torch.maximum(found, wanted)).sum()
    return float(1 - (counts * found * wanted).sum() / union) if union > 0 else 0.0


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("target", list(product([0.0, 1.0], repeat=4)))
def test_hinge_is_the_jaccard_loss_wherever_each_error_is_0_or_1(target: tuple[float, ...]) -> None:
    wanted = vector(*target)
    for wrong in product([0.0, 1.0], repeat=4):
        # A margin of 1 has no hinge error, a logit of 0 has 1.
        logits = (1 - vector(*wrong)) * (2 * wanted - 1)
        found = (wanted + vector(*wrong)) % 2
        assert LovaszHinge()(logits, wanted).item() == pytest.approx(iou_loss(found, wanted))


@pytest.mark.parametrize("space", SPACES)
def test_softmax_is_the_mean_jaccard_loss_of_the_classes_that_are_there_where_it_is_sure(
    space: tuple[int, ...],
) -> None:
    found = torch.randint(4, (2, 1, *space), generator=torch.Generator().manual_seed(0))
    wanted = torch.randint(3, (2, 1, *space), generator=torch.Generator().manual_seed(1))
    hot = torch.nn.functional.one_hot(found[:, 0], 4).movedim(-1, 1).double()
    present = [c for c in range(4) if bool((wanted == c).any())]
    assert present == [0, 1, 2]
    expected = sum(iou_loss((found == c).double(), (wanted == c).double()) for c in present) / len(present)
    assert LovaszSoftmax()(SURE * (2 * hot - 1), wanted.double()).item() == pytest.approx(expected)


def test_hinge_of_three_voxels_is_that_by_hand() -> None:
    # Errors 1 - logit * sign: 1.5 (outside), 0.8 (inside), 0.5 (inside), sorted as they are.
    logits, target = vector(0.5, 0.2, 0.5), vector(0, 1, 1)
    # 1 - IoU as they become wrong: 1 - 2/3, 1 - 1/3, 1 - 0/3.
    assert LovaszHinge()(logits, target).item() == pytest.approx(1.5 / 3 + 0.8 / 3 + 0.5 / 3)


@pytest.mark.parametrize("space", SPACES)
def test_a_class_that_is_wanted_nowhere_costs_its_largest_error(space: tuple[int, ...]) -> None:
    logits = random(0, 1, 1, *space)
    assert LovaszHinge()(logits, torch.zeros_like(logits)).item() == pytest.approx(1 + logits.max().item())


@pytest.mark.parametrize("space", SPACES)
def test_per_image_is_the_mean_of_the_images_alone(space: tuple[int, ...]) -> None:
    logits = random(0, 3, 2, *space) - 0.5
    target = (random(1, 3, 2, *space) > 0.7).double()
    numbers = torch.argmax(random(2, 3, 2, *space), 1, keepdim=True).double()
    for loss, per_image, wanted in (
        (LovaszHinge(), LovaszHinge(per_image=True), target),
        (LovaszSoftmax(), LovaszSoftmax(per_image=True), numbers),
    ):
        alone = [loss(logits[i : i + 1], wanted[i : i + 1]).item() for i in range(3)]
        assert per_image(logits, wanted).item() == pytest.approx(sum(alone) / 3)
        assert loss(logits, wanted).item() != pytest.approx(sum(alone) / 3)


@pytest.mark.parametrize("space", SPACES)
def test_a_weight_counts_a_voxel_so_many_times(space: tuple[int, ...]) -> None:
    logits = random(0, 1, 1, *space) - 0.5
    target = (random(1, 1, 1, *space) > 0.5).double()
    weight = torch.ones_like(target)
    weight[..., 0] = 2
    repeated = [torch.cat([t, t[..., :1]], -1) for t in (logits, target)]
    assert LovaszHinge()(logits, target, weight).item() == pytest.approx(LovaszHinge()(*repeated).item())
    both = torch.cat([logits, -logits], 1)
    twice = torch.cat([repeated[0], -repeated[0]], 1)
    assert LovaszSoftmax()(both, target, weight).item() == pytest.approx(
        LovaszSoftmax()(twice, repeated[1]).item()
    )


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize(("loss", "channels"), [(LovaszHinge(), 1), (LovaszSoftmax(), 3)])
def test_voxels_of_weight_0_are_as_if_cut_off_and_have_no_gradient(
    space: tuple[int, ...], loss: torch.nn.Module, channels: int
) -> None:
    logits = (random(0, 2, channels, *space) - 0.5).requires_grad_()
    target = (random(1, 2, 1, *space) > 0.5).double()
    weight = torch.ones_like(target)
    weight[..., -1] = 0
    weighted = loss(logits, target, weight)
    assert weighted.item() == pytest.approx(loss(logits[..., :-1], target[..., :-1]).item())
    weighted.backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[..., -1] == 0)
    assert torch.any(logits.grad[..., :-1] != 0)


@pytest.mark.parametrize(("loss", "channels"), [(LovaszHinge(), 1), (LovaszSoftmax(), 3)])
def test_gradients_are_those_of_finite_differences(loss: torch.nn.Module, channels: int) -> None:
    logits = random(0, 2, channels, 2, 3).requires_grad_()
    target, weight = (random(1, 2, 1, 2, 3) > 0.5).double(), random(2, 2, 1, 2, 3)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), (logits,))


def test_nothing_that_counts_has_loss_0() -> None:
    logits, target = random(0, 1, 2, 3, 3), torch.ones(1, 1, 3, 3, dtype=torch.float64)
    nothing = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    assert LovaszHinge()(logits[:, :1], target, nothing).item() == 0
    assert LovaszSoftmax()(logits, target, nothing).item() == 0


def test_softmax_of_one_channel_is_refused_with_the_loss_to_take() -> None:
    with pytest.raises(TrainingError, match="take LovaszHinge"):
        LovaszSoftmax()(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
