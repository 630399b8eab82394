"""The Lovász hinge of many sets at once is that of each alone."""

import pytest
import torch

from im2im_zoo.losses.lovasz import LovaszHinge
from im2im_zoo.losses.segments import lovasz_of_segments, mean_of_segments, sum_of_segments


def test_sums_and_means_are_of_each_set() -> None:
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    number, weight = torch.tensor([1, 0, 1]), torch.tensor([3.0, 5.0, 1.0])
    assert sum_of_segments(values, number, 2).tolist() == [[2.0, 20.0], [5.0, 50.0]]
    assert mean_of_segments(values, number, 2).tolist() == [[2.0, 20.0], [2.5, 25.0]]
    assert mean_of_segments(values, number, 2, weight).tolist() == [[2.0, 20.0], [1.75, 17.5]]


def test_the_hinge_of_two_sets_is_that_by_hand() -> None:
    # One set as in test_lovasz, 1 - IoU 1/3, 2/3, 1 as they become wrong; in the other, wanted alone, 1/2, 1.
    errors = torch.tensor([0.8, 0.4, 1.5, 0.5, 0.2])
    inside = torch.tensor([True, True, False, True, True])
    losses = lovasz_of_segments(errors, inside, torch.ones(5), torch.tensor([0, 1, 0, 0, 1]), 2)
    assert losses.tolist() == pytest.approx([1.5 / 3 + 0.8 / 3 + 0.5 / 3, 0.4 / 2 + 0.2 / 2])


def test_sets_of_all_sizes_have_the_loss_and_the_gradient_of_each_alone() -> None:
    random = torch.Generator().manual_seed(0)
    sizes = [1, 7, 40, 300]
    number = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    logits = torch.randn(sum(sizes), generator=random, dtype=torch.float64).requires_grad_()
    inside = torch.rand(sum(sizes), generator=random) > 0.6
    inside[torch.tensor([0, 1, 8, 48])] = True
    weight = torch.randint(0, 4, (sum(sizes),), generator=random).double()
    weight[inside] += 1
    shuffled = torch.randperm(sum(sizes), generator=random)
    errors = torch.relu(1 - logits * (2 * inside.double() - 1))
    found = lovasz_of_segments(*(t[shuffled] for t in (errors, inside, weight, number)), 4)
    (gradient,) = torch.autograd.grad(found.sum(), logits, retain_graph=True)
    alone = []
    for one in range(4):
        rows = [t[number == one].view(1, 1, -1) for t in (logits, inside.double(), weight)]
        alone.append(LovaszHinge()(rows[0], rows[1], weight=rows[2]))
    torch.testing.assert_close(found, torch.stack(alone))
    torch.testing.assert_close(gradient, torch.autograd.grad(torch.stack(alone).sum(), logits)[0])


def test_no_sets_have_no_loss() -> None:
    none = torch.zeros(0)
    assert lovasz_of_segments(none, none > 0, none, none.long(), 0).shape == (0,)
