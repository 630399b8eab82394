"""Soft Dice with a weight for each voxel. Without weights, monai.losses.DiceLoss is the same and has more options."""

from torch import Tensor, nn

from im2im_zoo.losses.classes import check_activation, compared


class SoftDice(nn.Module):
    """1 - 2 sum(w p t) / (sum(w p) + sum(w t)) of probabilities p and target t (Milletari et al. 2016, arXiv:1606.04797).

    The mean over images and classes, from 0 to 1. The denominator is of plain, not of squared values, as in MONAI's
    DiceLoss. Weights say which voxels count how often; one that is the same for a whole class cancels out.

    Args:
        sigmoid, softmax: whether the prediction holds logits of classes that may overlap, or that exclude each other.
        include_background: whether the first of several classes counts.
        batch: take the sums over the batch, not over each image.
        smooth: added to numerator and denominator, so that 0 / 0 is no overlap missed.
    Raises:
        TrainingError: both `sigmoid` and `softmax`.
    """

    def __init__(
        self,
        sigmoid: bool = False,
        softmax: bool = False,
        include_background: bool = True,
        batch: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        super().__init__()
        check_activation("SoftDice", sigmoid=sigmoid, softmax=softmax)
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.include_background = include_background
        self.batch = batch
        self.smooth = smooth

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of a batch.

        Args:
            prediction: (batch, class, (z,) y, x).
            target: of the same shape, or one channel of class numbers where the prediction has several.
            weight: broadcastable to the target's shape; None weighs all alike.
        Raises:
            TrainingError: shapes that do not fit.
        """
        found, wanted, counts = compared(
            prediction,
            target,
            weight,
            sigmoid=self.sigmoid,
            softmax=self.softmax,
            include_background=self.include_background,
        )
        axes = [*([0] if self.batch else []), *range(2, found.ndim)]
        each = 1.0 if counts is None else counts
        overlap = (each * found * wanted).sum(axes)
        total = (each * (found + wanted)).sum(axes)
        return (1 - (2 * overlap + self.smooth) / (total + self.smooth)).mean()
