"""Gradient difference loss, for sharp edges without a pretrained network."""

import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.losses.classes import expanded
from im2im_zoo.losses.weighted import weighted_mean


class GradientDifference(nn.Module):
    """Difference in size of the steps between neighbouring voxels (Mathieu et al. 2016, arXiv:1511.05440, equation 6).

    The mean of | |step of the target| - |step of the prediction| | ** alpha, summed over the space axes; at least 0. A
    blurred prediction has the right mean and the wrong steps. It ignores a constant offset and an inverted
    image: add it to an element-wise loss.

    Args:
        alpha: the exponent, 1 or more.
    Raises:
        TrainingError: alpha is below 1, where the gradient is unbounded.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        if alpha < 1:
            raise TrainingError(f"GradientDifference: alpha is {alpha}; give 1 or more")
        self.alpha = alpha

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch. An axis of one voxel has no steps and adds nothing.

        Args:
            prediction: (batch, channel, (z,) y, x).
            target: of the same shape.
            weight: broadcastable to the target's shape; a step has the smaller weight of its two voxels. None for
                equal weights.
        Raises:
            TrainingError: shapes do not fit.
        """
        if prediction.shape != target.shape:
            raise TrainingError(
                f"GradientDifference: the prediction has the shape {tuple(prediction.shape)}, the target "
                f"{tuple(target.shape)}; they have to be the same"
            )
        weight = None if weight is None else expanded(weight, target)
        total = prediction.new_zeros((), dtype=torch.promote_types(prediction.dtype, torch.float32))
        for axis in range(2, prediction.ndim):
            if target.shape[axis] > 1:
                steps = (target.diff(dim=axis).abs() - prediction.diff(dim=axis).abs()).abs()
                total = total + weighted_mean(steps**self.alpha, _step_weight(weight, axis))
        return total


def _step_weight(weight: Tensor | None, axis: int) -> Tensor | None:
    if weight is None:
        return None
    last = weight.shape[axis] - 1
    return torch.minimum(weight.narrow(axis, 0, last), weight.narrow(axis, 1, last))
