"""Whether weights, batches and other tensors by name are the same to the last bit."""

from collections.abc import Mapping

import torch
from torch import Tensor


def differing(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that are not the same in both, those that only one has among them, sorted.

    Raises:
        AssertionError: neither has a tensor, so that nothing would be compared.
    """
    assert one or other, "there is nothing to compare"
    names = one.keys() | other.keys()
    return sorted(n for n in names if n not in one or n not in other or not torch.equal(one[n], other[n]))
