"""Weighted mean of an element-wise loss of torch or MONAI."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.classes import expanded, one_hot


class Weighted(nn.Module):
    """Weighted mean of an element-wise loss: sum(weight * loss) / sum(weight).

        {callable: im2im_zoo.losses.weighted.Weighted,
         kwargs: {loss: {callable: torch.nn.SmoothL1Loss, kwargs: {reduction: none}}}}

    Any loss of torch.nn (MSELoss, L1Loss, SmoothL1Loss, HuberLoss, BCEWithLogitsLoss, CrossEntropyLoss) or
    monai.losses (FocalLoss) that takes `reduction: none`. Without weights it is the loss's own mean. A voxel of weight 0
    has no gradient.

    Args:
        loss: maps (prediction, target) to a value for each element, or for each voxel without a channel axis.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            prediction: (batch, channel, (z,) y, x).
            target: of the same shape, or one channel of class numbers where the prediction has several.
            weight: broadcastable to the target's shape; None for equal weights.
        Raises:
            TrainingError: shapes do not fit, or the loss returns one number instead of one for each element.
        """
        values = self.loss(prediction, one_hot(target, prediction))
        if values.shape == prediction.shape[:1] + prediction.shape[2:]:
            values = values.unsqueeze(1)
        if values.ndim != prediction.ndim:
            raise TrainingError(
                f"Weighted: {self.loss} returns shape {tuple(values.shape)} for a prediction of shape "
                f"{tuple(prediction.shape)}; give it kwargs `reduction: none`, the mean is taken here"
            )
        return weighted_mean(values, weight)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return sum(weight * values) / sum(weight), the mean if `weight` is None, and 0 if all weights are 0.

    Args:
        values: (batch, channel, (z,) y, x).
        weight: broadcastable to `values`.
    Raises:
        TrainingError: the weight cannot be broadcast.
    """
    # The sum over a volume overflows half precision.
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if weight is None:
        return values.mean()
    weight = expanded(weight, values)
    return (weight * values).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
