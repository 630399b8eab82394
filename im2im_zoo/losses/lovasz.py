"""Lovász losses: convex surrogates of the Jaccard index (IoU)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.classes import expanded, one_hot


class LovaszHinge(nn.Module):
    """Lovász hinge for one class, or several that may overlap (Berman et al. 2018, arXiv:1705.08790, section 3.1).

    The Jaccard loss 1 - IoU of the set of wrong voxels, extended to their hinge errors max(0, 1 - logit * sign). It is
    0 where all margins are at least 1, and has no upper bound.

    Args:
        per_image: compute the Jaccard index for each image and average; otherwise for the batch.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch, the mean over its channels.

        Args:
            prediction: logits, (batch, channel, (z,) y, x).
            target: 0 and 1, of the same shape, or one channel of class numbers where the prediction has several.
            weight: broadcastable to the target's shape, None for equal weights.
        Raises:
            TrainingError: shapes do not fit.
        """
        target = one_hot(target, prediction)
        logits = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        errors = F.relu(1 - logits * (2 * target - 1))
        losses, _ = _extended_jaccard(errors, target, weight, self.per_image)
        return losses.mean()


class LovaszSoftmax(nn.Module):
    """Lovász softmax for classes that exclude each other (Berman et al. 2018, arXiv:1705.08790, section 3.2).

    For each class the Jaccard loss 1 - IoU, extended to the errors |target - probability|; the mean over the classes
    that the target has. From 0 to 1.

    Args:
        per_image: compute the Jaccard index for each image and average; otherwise for the batch.
    """

    def __init__(self, per_image: bool = False) -> None:
        super().__init__()
        self.per_image = per_image

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            prediction: logits, (batch, class, (z,) y, x), of two classes or more.
            target: one-hot, of the same shape, or one channel of class numbers.
            weight: broadcastable to the target's shape, None for equal weights.
        Raises:
            TrainingError: a prediction of one channel, or shapes that do not fit.
        """
        if prediction.shape[1] == 1:
            raise TrainingError(
                "LovaszSoftmax: the prediction has one channel, which a softmax makes 1 everywhere; give the network "
                "a channel for each class, background too, or take LovaszHinge"
            )
        target = one_hot(target, prediction)
        logits = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        errors = (target - torch.softmax(logits, 1)).abs()
        losses, present = _extended_jaccard(errors, target, weight, self.per_image)
        return ((losses * present).sum(1) / present.sum(1).clamp(min=1)).mean()


def _extended_jaccard(
    errors: Tensor, target: Tensor, weight: Tensor | None, per_image: bool
) -> tuple[Tensor, Tensor]:
    """Return the Lovász extension of the Jaccard loss at some errors, and whether the class is present.

    Both (image, channel), or (1, channel) for the batch as one image.
    """
    counts = torch.ones_like(errors) if weight is None else expanded(weight, errors)
    foreground = counts * target
    values, inside, outside = (_rows(t, per_image) for t in (errors, foreground, counts - foreground))
    values, order = values.sort(-1, descending=True)
    slopes = _jaccard_slopes(inside.gather(-1, order), outside.gather(-1, order))
    present = (inside.sum(-1) > 0).to(errors.dtype)
    return (values * slopes).sum(-1), present


def _rows(values: Tensor, per_image: bool) -> Tensor:
    """Return values as (image, channel, voxel), or as (1, channel, voxel of any image)."""
    rows = values.flatten(2)
    return rows if per_image else rows.transpose(0, 1).flatten(1).unsqueeze(0)


@torch.no_grad()
def _jaccard_slopes(inside: Tensor, outside: Tensor) -> Tensor:
    """Return the increase of 1 - IoU with each further wrong voxel, in the given order (the paper's algorithm 1).

    Args:
        inside, outside: weights of the voxels inside and outside the target, the largest error first.
    """
    target = inside.sum(-1, keepdim=True)
    intersection = target - inside.cumsum(-1)
    union = target + outside.cumsum(-1)
    # No target and no prediction: no loss.
    loss = torch.where(union > 0, 1 - intersection / union.clamp(min=torch.finfo(union.dtype).tiny), 0.0)
    return torch.diff(loss, dim=-1, prepend=torch.zeros_like(target))
