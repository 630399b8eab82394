"""Metrics logged in training, accumulated over all validation patches, not averaged over batches.

Those of torchmetrics do not replace them: `PearsonCorrCoef` and `MultilabelF1Score` need the number of channels in
advance, which a recipe leaves to the data, and a constant prediction makes the correlation NaN. The metrics that a
package reports are computed by `im2im_zoo.evaluation`, on whole images.
"""

import torch
from torch import Tensor
from torchmetrics import Metric


class Pearson(Metric):
    """Pearson correlation over all voxels of a channel, averaged over the channels.

    Inputs are (batch, channel, (z,) y, x), any real range.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    sums: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", default=torch.zeros(5, 1, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of (batch, channel, (z,) y, x)."""
        p, t = (a.transpose(0, 1).flatten(1).double() for a in (prediction, target))
        batch = torch.stack([p.sum(1), t.sum(1), (p * p).sum(1), (t * t).sum(1), (p * t).sum(1)])
        self.sums = self.sums + batch
        self.count = self.count + p.shape[1]

    def compute(self) -> Tensor:
        """Return the correlation, -1 to 1; 0 if prediction or target is constant."""
        p, t, pp, tt, pt = self.sums / self.count
        covariance, scale = pt - p * t, torch.sqrt((pp - p * p).clamp(min=0) * (tt - t * t).clamp(min=0))
        correlation = torch.where(scale > 0, covariance / scale.clamp(min=1e-300), torch.zeros_like(scale))
        return correlation.mean().float()


class Dice(Metric):
    """Dice coefficient 2 TP / (2 TP + FP + FN) over all voxels of a channel, averaged over the channels.

    Args:
        threshold: the prediction is foreground above it; 0 for logits, 0.5 for probabilities. The target is
            foreground above 0.5. Without any foreground in both, it is 1.
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    sums: Tensor

    def __init__(self, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold
        self.add_state("sums", default=torch.zeros(2, 1, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch of (batch, channel, (z,) y, x)."""
        p = (prediction > self.threshold).transpose(0, 1).flatten(1)
        t = (target > 0.5).transpose(0, 1).flatten(1)
        self.sums = self.sums + torch.stack([2 * (p & t).sum(1), p.sum(1) + t.sum(1)]).double()

    def compute(self) -> Tensor:
        """Return the coefficient, 0 to 1."""
        both, total = self.sums
        return torch.where(total > 0, both / total.clamp(min=1), torch.ones_like(both)).mean().float()
