"""Weighting of losses by voxel and class, deep supervision, and checks of losses and targets."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.weighted import weighted_mean

Loss = Callable[..., Tensor]


def heads_of(output: object, target: Tensor) -> list[Tensor]:
    """Return the predictions of a network in training, the finest first: one, or several with deep supervision.

    Args:
        output: (batch, channel, (z,) y, x); a list of such; or all of one size in one tensor (batch, head, channel,
            (z,) y, x), as MONAI's DynUNet gives them.
        target: has the axes of a prediction.

    Raises:
        TrainingError: the output is none of these.
    """
    if isinstance(output, Tensor) and output.ndim == target.ndim + 1:
        return list(output.unbind(1))
    heads = [output] if isinstance(output, Tensor) else output
    if not isinstance(heads, list | tuple) or not heads:
        raise TrainingError(
            f"in training the network returns {type(output).__name__}, not one tensor or several; choose another network"
        )
    for head in heads:
        if not isinstance(head, Tensor) or head.ndim != target.ndim:
            raise TrainingError(
                f"in training the network returns {_describe(head)}, which does not fit a target of shape "
                f"{list(target.shape)}; choose another network"
            )
    return list(heads)


def deep_loss(
    loss: Loss, heads: Sequence[Tensor], target: Tensor, cost: Tensor | None, class_weights: Tensor | None
) -> Tensor:
    """Return the mean of the losses of all heads, weighted 1, 1/2, 1/4, ... (Lee et al. 2015, arXiv:1409.5185; the weights
    of nnU-Net, Isensee et al. 2021, doi:10.1038/s41592-020-01008-z).

    A smaller head is compared with the target's voxels nearest to its own, so that labels stay labels and voxels
    of weight 0 are left out. Arguments as in `weighted_loss`.
    """
    factors = [0.5**depth for depth in range(len(heads))]
    losses = []
    for factor, head in zip(factors, heads, strict=True):
        size = head.shape[2:]
        weight = None if cost is None else _nearest(cost, size)
        single = weighted_loss(loss, head, _nearest(target, size), weight, class_weights)
        losses.append(factor / sum(factors) * single)
    return torch.stack(losses).sum()


def weighted_loss(
    loss: Loss,
    prediction: Tensor,
    target: Tensor,
    cost: Tensor | None,
    class_weights: Tensor | None,
    key: str = "loss",
) -> Tensor:
    """Return the loss of one prediction, a scalar; voxels of weight 0 change neither it nor any gradient.

    Args:
        loss: `check_weightable` says which losses can be weighted.
        prediction, target: (batch, channel, (z,) y, x).
        cost: weight of each voxel, (batch, 1, (z,) y, x), at least 0.
        class_weights: weight of each channel of the target, (channel,), at least 0.
        key: name of the loss in `framework.kwargs`, for messages.

    Raises:
        TrainingError: the loss cannot be weighted, or not by class; or the numbers of channels differ.
    """
    if cost is None and class_weights is None:
        return loss(prediction, target).mean()  # one value for each voxel, or one in all
    check_weightable(loss, key)
    weight = torch.ones_like(target[:1, :1]) if cost is None else cost
    if cost is not None:
        # Values there, even NaN, must not reach the loss, which may look at neighbours.
        prediction, target = prediction.masked_fill(cost == 0, 0), target.masked_fill(cost == 0, 0)
    if class_weights is not None:
        if len(class_weights) != target.shape[1]:
            raise TrainingError(
                f"framework.kwargs.class_weights has {len(class_weights)} numbers, but the target has "
                f"{target.shape[1]} channels; give one for each"
            )
        weight = weight * class_weights.to(weight).view(1, -1, *[1] * (target.ndim - 2))
    if _takes_weight(loss):
        return loss(prediction, target, weight=weight)
    each = loss(prediction, target)
    if each.shape == target[:, 0].shape:  # one value for all channels, as of a cross-entropy
        each = each.unsqueeze(1)
    if each.shape[2:] != target.shape[2:] or weight.shape[1] not in (1, each.shape[1]):
        raise TrainingError(
            f"framework.kwargs.{key}: {type(loss).__name__} with reduction none returns values of shape "
            f"{list(each.shape)}, which cannot be weighted by {list(weight.shape)}; use a loss of single voxels for "
            "weight maps (data.cost), and one of single voxels and channels for class_weights"
        )
    return weighted_mean(each, weight)


def check_weightable(loss: Loss, key: str = "loss") -> None:
    """Refuse a loss that cannot be weighted by voxel; `key` is its name in `framework.kwargs`.

    Raises:
        TrainingError: the loss neither takes a `weight` nor has the reduction "none".
    """
    if not _takes_weight(loss) and getattr(loss, "reduction", None) != "none":
        raise TrainingError(
            f"framework.kwargs.{key}: {type(loss).__name__} cannot weight voxels, as weight maps "
            "(data.cost) and class_weights need: it takes no `weight` with the target; use a loss of im2im_zoo.losses "
            "that does, or one of single voxels with `reduction: none`, e.g. of torch.nn.MSELoss"
        )


def check_instance_labels(target: Tensor, method: str) -> None:
    """Refuse a target (batch, channel, (z,) y, x) that is not one channel of instance labels, as `method` needs.

    Raises:
        TrainingError: the target has other values or several channels.
    """
    labels = target[:, 0]
    if target.shape[1] != 1 or not torch.equal(labels, labels.round()):
        raise TrainingError(
            f"{method}: the target has {target.shape[1]} channel(s) and values up to {labels.max().item():g}, but must be one "
            "channel of instance labels, whole numbers; remove scaling from target.preprocessing, and augmentations "
            "that change values of the target (give those of intensities `keys: [input]`)"
        )


def _takes_weight(loss: Loss) -> bool:
    call: Any = loss.forward if isinstance(loss, nn.Module) else loss
    return "weight" in inspect.signature(call).parameters


def _nearest(values: Tensor, size: Sequence[int]) -> Tensor:
    if values.shape[2:] == torch.Size(size):
        return values
    return F.interpolate(values, size=list(size), mode="nearest-exact")


def _describe(head: object) -> str:
    return f"shape {list(head.shape)}" if isinstance(head, Tensor) else type(head).__name__
