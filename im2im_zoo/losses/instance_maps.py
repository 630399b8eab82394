"""Distance, boundary and affinity maps of instance labels: the targets of `InstanceMaps`, computed for each patch."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["distance", "boundary", "affinities"]
KINDS: tuple[Kind, ...] = ("distance", "boundary", "affinities")


def channels_of(kinds: Sequence[Kind], axes: int) -> int:
    """Return the number of channels of maps with so many space axes: affinities one for each axis, the others one."""
    return sum(axes if kind == "affinities" else 1 for kind in kinds)


def maps_of(labels: Tensor, kinds: Sequence[Kind], reach: int) -> Tensor:
    """Compute the maps of instance labels, each from 0 to 1, (batch, channel, (z,) y, x).

    - distance: steps between neighbouring voxels that lead out of the object, at most `reach`, divided by `reach`
      (as in Bai and Urtasun 2017, arXiv:1611.08303); 0 in the background, 1 / `reach` where an object ends.
    - boundary: 1 in voxels of an object that have a neighbour outside of it.
    - affinities: one along each of (z,) y, x; 1 where a voxel and the one before it are of one object (Turaga et al. 2010,
      doi:10.1162/neco.2009.10-08-881), 0 else, also within the background.

    Objects are assumed to continue beyond the patch.

    Args:
        labels: (batch, 1, (z,) y, x), whole numbers, 0 background.
        kinds: of the maps, in the order of the channels.
        reach: at least 1.
    """
    found = []
    for kind in kinds:
        if kind == "distance":
            found.append(_depth(labels, reach) / reach)
        elif kind == "boundary":
            inside = labels > 0
            found.append((inside & ~_eroded(labels, inside)).to(labels.dtype))
        else:
            found += [_same_as_before(labels, axis).to(labels.dtype) for axis in range(2, labels.ndim)]
    return torch.cat(found, 1)


def weights_of(cost: Tensor, kinds: Sequence[Kind]) -> Tensor:
    """Return the weights of the maps: those of the voxels; of an affinity the lesser of its two, 0 for the first along an axis.

    Args:
        cost: (batch, 1, (z,) y, x), at least 0.
    """
    found = []
    for kind in kinds:
        if kind != "affinities":
            found.append(cost)
            continue
        for axis in range(2, cost.ndim):
            each = torch.zeros_like(cost)
            before, after = _neighbours(cost, axis)
            _neighbours(each, axis)[1].copy_(torch.minimum(before, after))
            found.append(each)
    return torch.cat(found, 1)


def _neighbours(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return views of all voxels except the last along an axis, and of all except the first."""
    size = values.shape[axis] - 1
    return values.narrow(axis, 0, size), values.narrow(axis, 1, size)


def _same_as_before(labels: Tensor, axis: int) -> Tensor:
    same = torch.zeros_like(labels, dtype=torch.bool)
    before, after = _neighbours(labels, axis)
    _neighbours(same, axis)[1].copy_((before == after) & (after > 0))
    return same


def _eroded(labels: Tensor, mask: Tensor) -> Tensor:
    """Return the voxels of a mask whose neighbours in the patch are all in it and of the same object."""
    kept = mask.clone()
    for axis in range(2, labels.ndim):
        before, after = _neighbours(labels, axis)
        same = before == after
        (mask_before, mask_after), (kept_before, kept_after) = (_neighbours(m, axis) for m in (mask, kept))
        kept_before &= same & mask_after
        kept_after &= same & mask_before
    return kept


def _depth(labels: Tensor, reach: int) -> Tensor:
    mask = labels > 0
    depth = mask.to(labels.dtype)
    for _ in range(reach - 1):
        mask = _eroded(labels, mask)
        depth += mask
    return depth
