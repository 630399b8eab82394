"""Element-wise losses, averaged with a weight for each voxel. The element-wise losses are torch's and MONAI's."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.classes import expanded, one_hot


class Weighted(nn.Module):
    """The weighted mean of an element-wise loss: sum(weight * loss) / sum(weight).

        {callable: im2im_zoo.losses.weighted.Weighted,
         kwargs: {loss: {callable: torch.nn.SmoothL1Loss, kwargs: {reduction: none}}}}

    Any loss of torch.nn (MSELoss, L1Loss, SmoothL1Loss, HuberLoss, BCEWithLogitsLoss, CrossEntropyLoss) or
    monai.losses (FocalLoss) that takes `reduction: none`. Without weights it is the loss's own mean. A voxel of weight 0
    has no gradient.

    Args:
        loss: of (prediction, target) to a value for each element, or for each voxel without a channel axis.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            prediction: (batch, channel, (z,) y, x).
            target: of the same shape, or one channel of class numbers where the prediction has several.
            weight: broadcastable to the target's shape; None weighs all alike.
        Raises:
            TrainingError: shapes that do not fit, or a loss that gives one number instead of one for each element.
        """
        values = self.loss(prediction, one_hot(target, prediction))
        if values.shape == prediction.shape[:1] + prediction.shape[2:]:
            values = values.unsqueeze(1)
        if values.ndim != prediction.ndim:
            raise TrainingError(
                f"Weighted: {self.loss} gives a result of shape {tuple(values.shape)} for a prediction of shape "
                f"{tuple(prediction.shape)}; give it kwargs `reduction: none`, the mean is taken here"
            )
        return weighted_mean(values, weight)


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """sum(weight * values) / sum(weight), the mean if `weight` is None, and 0 if all weights are 0.

    Args:
        values: (batch, channel, (z,) y, x).
        weight: broadcastable to `values`.
    Raises:
        TrainingError: it is not.
    """
    # Half precision has no room for the sum over a volume.
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    if weight is None:
        return values.mean()
    weight = expanded(weight, values)
    return (weight * values).sum() / weight.sum().clamp(min=torch.finfo(values.dtype).tiny)
