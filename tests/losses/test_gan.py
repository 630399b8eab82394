"""GAN losses against numbers worked out by hand from the papers' formulas."""

import math

import pytest
import torch
from torch import Tensor

from im2im_zoo.losses.gan import GANLoss, Kind

REAL = torch.tensor([[[[2.0, 0.0]]]])
FAKE = torch.tensor([[[[1.0, -3.0]]]])


def softplus(x: float) -> float:
    """-log of the sigmoid of -x."""
    return math.log1p(math.exp(x))


# For each kind: of real ones, of fakes, and what the generator loses by the fakes; means of two voxels.
WORKED: dict[Kind, tuple[float, float, float]] = {
    "vanilla": (
        (softplus(-2) + softplus(0)) / 2,
        (softplus(1) + softplus(-3)) / 2,
        (softplus(-1) + softplus(3)) / 2,
    ),
    "least_squares": ((1 + 1) / 2, (1 + 9) / 2, (0 + 16) / 2),
    "hinge": ((0 + 1) / 2, (2 + 0) / 2, -(1 - 3) / 2),
}


@pytest.mark.parametrize("kind", WORKED)
def test_losses_are_those_of_the_papers(kind: Kind) -> None:
    real, fake, generator = WORKED[kind]
    loss = GANLoss(kind)
    assert float(loss.discriminator(REAL, FAKE)) == pytest.approx((real + fake) / 2)
    assert float(loss.generator(FAKE)) == pytest.approx(generator)


@pytest.mark.parametrize("kind", WORKED)
def test_several_discriminators_add_up_whatever_the_size_of_their_outputs(kind: Kind) -> None:
    loss = GANLoss(kind)
    large = FAKE.repeat(1, 1, 4, 4)
    assert float(loss.generator([FAKE, large])) == pytest.approx(2 * float(loss.generator(FAKE)))
    both = loss.discriminator([REAL, REAL.repeat(1, 1, 4, 4)], [FAKE, large])
    assert float(both) == pytest.approx(2 * float(loss.discriminator(REAL, FAKE)))


@pytest.mark.parametrize("kind", WORKED)
def test_descending_moves_outputs_to_where_they_should_be(kind: Kind) -> None:
    real, fake = (torch.full((2, 1, 3, 3, 3), 0.5, requires_grad=True) for _ in range(2))
    loss = GANLoss(kind)
    loss.discriminator(real, fake).backward()  # type: ignore[no-untyped-call]
    assert real.grad is not None
    assert fake.grad is not None
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    fake.grad = None
    loss.generator(fake).backward()  # type: ignore[no-untyped-call]
    assert (fake.grad < 0).all()  # type: ignore[operator]


def test_a_generator_that_is_found_out_still_learns() -> None:
    fake: Tensor = torch.full((1, 1, 2, 2), -20.0, requires_grad=True)
    GANLoss("vanilla").generator(fake).backward()  # type: ignore[no-untyped-call]
    assert fake.grad is not None
    assert float(fake.grad.sum()) == pytest.approx(-1.0)


def test_halves_are_summed_in_full_precision() -> None:
    fake = torch.full((1, 1, 4, 4), 300.0, dtype=torch.half)  # its square is no half
    loss = GANLoss("least_squares").generator(fake)
    assert loss.dtype == torch.float32
    assert float(loss) == 299.0**2


def test_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of vanilla, least_squares, hinge"):
        GANLoss("wasserstein")  # type: ignore[arg-type]
