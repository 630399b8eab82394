"""Sums, means and the Lovász hinge of many sets at once; each element has the number of its set."""

import torch
from torch import Tensor


def sum_of_segments(values: Tensor, number: Tensor, count: int) -> Tensor:
    """Return the sum of each set's values, (set, ...).

    Args:
        values: (element, ...).
        number: (element,), of its set, 0 to `count` - 1.
        count: number of sets.
    """
    return values.new_zeros(count, *values.shape[1:]).index_add(0, number, values)


def mean_of_segments(values: Tensor, number: Tensor, count: int, weight: Tensor | None = None) -> Tensor:
    """Return the mean of each set's values, (set, column), weighted if `weight` is given.

    Args:
        values: (element, column).
        number, count: as in `sum_of_segments`; no set may be empty.
        weight: (element,).
    """
    each = torch.ones_like(values[:, :1]) if weight is None else weight.unsqueeze(1)
    return sum_of_segments(each * values, number, count) / sum_of_segments(each, number, count)


def lovasz_of_segments(errors: Tensor, inside: Tensor, weight: Tensor, number: Tensor, count: int) -> Tensor:
    """Return the Jaccard loss of each set, extended to hinge errors (Berman et al. 2018, arXiv:1705.08790), (set,).

    Equals `losses.lovasz.LovaszHinge` of each set. Elements whose error is 0 may be left out, except those inside.

    Args:
        errors: (element,), max(0, 1 - logit * sign).
        inside: (element,), whether it is in the target; at least one of each set is.
        weight: (element,).
        number, count: as in `sum_of_segments`.
    """
    order = torch.argsort(errors.detach(), descending=True, stable=True)
    order = order[torch.argsort(number[order], stable=True)]
    slopes = _slopes(inside[order], weight[order], number[order], count)
    return sum_of_segments(errors[order] * slopes, number[order], count)


@torch.no_grad()
def _slopes(inside: Tensor, weight: Tensor, number: Tensor, count: int) -> Tensor:
    """Return the increase of 1 - IoU of a set with each further wrong element, in the given order (the paper's algorithm 1)."""
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
