"""Sums, means and the Lovász hinge over many sets of elements at once, each element with the number of its set."""

import torch
from torch import Tensor


def sum_of_segments(values: Tensor, number: Tensor, count: int) -> Tensor:
    """The sum of each set's values.

    Args:
        values: (element, ...).
        number: (element,), of its set, 0 to `count` - 1.
    """
    return values.new_zeros(count, *values.shape[1:]).index_add(0, number, values)


def mean_of_segments(values: Tensor, number: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """The mean of each set's values, (set, column), weighted if there is a `weight` of (element,).

    Args:
        values: (element, column).
        number: as in `sum_of_segments`; no set may be empty.
    """
    heed = torch.ones_like(values[:, :1]) if weight is None else weight.unsqueeze(1)
    return sum_of_segments(heed * values, number, count) / sum_of_segments(heed, number, count)


def lovasz_of_segments(errors: Tensor, inside: Tensor, weight: Tensor, number: Tensor, count: int) -> Tensor:
    """The Jaccard loss of each set, extended to hinge errors (Berman et al. 2018, arXiv:1705.08790), (set,).

    What `losses.lovasz.LovaszHinge` gives of one set, of many that have different sizes. Elements whose error is 0 may be
    left out, except those inside.

    Args:
        errors: (element,), max(0, 1 - logit * sign).
        inside: (element,), whether it is wanted; each set has one that is.
        weight: (element,), how often it counts.
        number: (element,), of its set.
    """
    order = torch.argsort(errors.detach(), descending=True, stable=True)
    order = order[torch.argsort(number[order], stable=True)]
    slopes = _slopes(inside[order], weight[order], number[order], count)
    return sum_of_segments(errors[order] * slopes, number[order], count)


@torch.no_grad()
def _slopes(inside: Tensor, weight: Tensor, number: Tensor, count: int) -> Tensor:
    """By how much 1 - IoU of its set grows when one more element, in the given order, becomes wrong (the paper's algorithm 1)."""
    # A sum over all sets so far has more digits than float32.
    wanted, other = (torch.where(a, weight, 0).double() for a in (inside, ~inside))
    before = sum_of_segments(torch.stack([wanted, other], 1), number, count).cumsum(0)
    within = torch.diff(before, dim=0, prepend=before.new_zeros(1, 2))
    before = (before - within)[number]
    target = within[number, 0]
    left = target - (wanted.cumsum(0) - before[:, 0])
    union = target + (other.cumsum(0) - before[:, 1])
    loss = 1 - left / union
    first = torch.diff(number, prepend=number.new_full((1,), -1)) > 0
    previous = torch.where(first, 0, loss.roll(1))
    return (loss - previous).to(weight.dtype)
