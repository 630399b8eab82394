"""Soft Dice loss with voxel weights; without them it equals `monai.losses.DiceLoss`, which has more options."""

from torch import Tensor

from im2im_zoo.losses.classes import ClassLoss


class SoftDice(ClassLoss):
    """1 - 2 sum(w p t) / (sum(w p) + sum(w t)) of probabilities p and target t (Milletari et al. 2016, arXiv:1606.04797).

    The mean over images and classes, from 0 to 1. The denominator is of plain, not of squared values, as in MONAI's
    DiceLoss. A weight counts a voxel so many times; one that is constant over a class cancels out.

    Args:
        sigmoid, softmax, include_background: see `ClassLoss`.
        batch: take the sums over the batch, not over each image.
        smooth: added to numerator and denominator, so that 0 / 0 is a loss of 0.
    """

    def __init__(
        self,
        sigmoid: bool = False,
        softmax: bool = False,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__(sigmoid, softmax, include_background)
        self.batch = batch
        self.smooth = smooth

    def compare(self, probability: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the mean over images (or of the batch) and classes."""
        axes = [*([0] if self.batch else []), *range(2, probability.ndim)]
        each = 1.0 if weight is None else weight
        overlap = (each * probability * target).sum(axes)
        total = (each * (probability + target)).sum(axes)
        return (1 - (2 * overlap + self.smooth) / (total + self.smooth)).mean()
