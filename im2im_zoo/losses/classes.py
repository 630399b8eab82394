"""Conversion of predictions, targets and weights to one form: a channel for each class, probabilities, equal shapes."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError


class ClassLoss(nn.Module):
    """Base of losses that compare the probabilities of classes with the target.

    Args:
        sigmoid, softmax: whether the prediction holds logits of classes that may overlap, or that exclude each other.
        include_background: whether the first of several classes counts.
    Raises:
        TrainingError: both `sigmoid` and `softmax`.
    """

    def __init__(self, sigmoid: bool, softmax: bool, include_background: bool) -> None:
        super().__init__()
        if sigmoid and softmax:
            raise TrainingError(
                f"{type(self).__name__}: sigmoid and softmax are both true; give sigmoid for classes that may overlap, softmax "
                "for classes that exclude each other"
            )
        self.sigmoid = sigmoid
        self.softmax = softmax
        self.include_background = include_background

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of a batch.

        Args:
            prediction: (batch, class, (z,) y, x).
            target: 0 and 1, of the same shape, or one channel of class numbers where the prediction has several.
            weight: broadcastable to the target's shape; None for equal weights.
        Raises:
            TrainingError: see `one_hot` and `expanded`.
        """
        # Sums in half precision lose their terms.
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target = one_hot(target, prediction).to(prediction.dtype)
        if self.sigmoid:
            prediction = torch.sigmoid(prediction)
        if self.softmax:
            prediction = torch.softmax(prediction, 1)
        first = 0 if self.include_background or prediction.shape[1] == 1 else 1
        weight = None if weight is None else expanded(weight, prediction)[:, first:]
        return self.compare(prediction[:, first:], target[:, first:], weight)

    @abstractmethod
    def compare(self, probability: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        """Return the loss, a scalar, of probabilities, target and weights of one shape and type, (batch, class, (z,) y, x)."""


def one_hot(target: Tensor, prediction: Tensor) -> Tensor:
    """Return the target with one channel for each channel of the prediction, in floating point.

    A target of one channel holds the number of each voxel's class where the prediction has several; any other has to
    have the prediction's shape.

    Args:
        target: (batch, 1 or channel, (z,) y, x).
        prediction: (batch, channel, (z,) y, x).
    Raises:
        TrainingError: shapes do not fit, or values are not class numbers.
    """
    if target.shape == prediction.shape:
        return target
    classes = prediction.shape[1]
    if (
        target.shape[1] != 1
        or target.shape[:1] + target.shape[2:] != prediction.shape[:1] + prediction.shape[2:]
    ):
        raise TrainingError(
            f"the loss compares a prediction of shape {tuple(prediction.shape)} with a target of shape "
            f"{tuple(target.shape)}: give the network as many channels as the target has (out_channels), or a target "
            "of one channel that holds class numbers"
        )
    numbers = target[:, 0].long()
    if not torch.equal(numbers.to(target.dtype), target[:, 0]) or not _within(numbers, classes):
        raise TrainingError(
            f"the prediction has {classes} channels, so the target's one channel has to hold class numbers from 0 to "
            f"{classes - 1}; it holds values from {target.min().item():.6g} to {target.max().item():.6g}"
        )
    return F.one_hot(numbers, classes).movedim(-1, 1).to(prediction.dtype)


def expanded(weight: Tensor, values: Tensor) -> Tensor:
    """Return a weight in the shape and type of `values`.

    Raises:
        TrainingError: the weight cannot be broadcast to that shape.
    """
    try:
        return weight.to(values.dtype).expand(values.shape)
    except RuntimeError as error:
        raise TrainingError(
            f"weights of shape {tuple(weight.shape)} do not fit a loss of shape {tuple(values.shape)}; a weight map needs "
            "the batch and space axes of the target, and one channel"
        ) from error


def _within(numbers: Tensor, classes: int) -> bool:
    return numbers.numel() == 0 or bool((numbers.min() >= 0) & (numbers.max() < classes))
