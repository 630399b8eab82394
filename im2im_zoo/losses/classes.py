"""Predictions, targets and weights in one form: a channel for each class, probabilities, equal shapes. No loss."""

import torch
from torch import Tensor
from torch.nn import functional as F

from im2im_zoo.core.errors import TrainingError


def one_hot(target: Tensor, prediction: Tensor) -> Tensor:
    """The target with a channel for each channel of the prediction, in floating point.

    A target of one channel holds the number of each voxel's class where the prediction has several; any other has to
    have the prediction's shape.

    Args:
        target: (batch, 1 or channel, (z,) y, x).
        prediction: (batch, channel, (z,) y, x).
    Raises:
        TrainingError: other shapes, or values that are no class numbers.
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


def compared(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None,
    *,
    sigmoid: bool,
    softmax: bool,
    include_background: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Probabilities, target and weights that a loss of regions compares, all (batch, class, (z,) y, x).

    Args:
        prediction: logits if `sigmoid` or `softmax`, else probabilities.
        target: see `one_hot`.
        weight: broadcastable to the target, or None.
        sigmoid, softmax: which function makes probabilities of the logits, if either.
        include_background: whether the first of several classes counts.
    Raises:
        TrainingError: see `one_hot` and `expanded`.
    """
    # Sums over half precision lose what they are made of.
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    target = one_hot(target, prediction).to(prediction.dtype)
    if sigmoid:
        prediction = torch.sigmoid(prediction)
    if softmax:
        prediction = torch.softmax(prediction, 1)
    first = 0 if include_background or prediction.shape[1] == 1 else 1
    weight = None if weight is None else expanded(weight, prediction)[:, first:]
    return prediction[:, first:], target[:, first:], weight


def expanded(weight: Tensor, values: Tensor) -> Tensor:
    """A weight in the shape and type of `values`.

    Raises:
        TrainingError: it cannot be broadcast to it.
    """
    try:
        return weight.to(values.dtype).expand(values.shape)
    except RuntimeError as error:
        raise TrainingError(
            f"weights of shape {tuple(weight.shape)} do not fit a loss of shape {tuple(values.shape)}: a cost map has "
            "the batch and space axes of the target, and one channel"
        ) from error


def check_activation(loss: str, *, sigmoid: bool, softmax: bool) -> None:
    """Raise a TrainingError if a loss of this name is given both functions."""
    if sigmoid and softmax:
        raise TrainingError(
            f"{loss}: sigmoid and softmax are both true; give sigmoid for classes that may overlap, softmax for "
            "classes that exclude each other"
        )


def _within(numbers: Tensor, classes: int) -> bool:
    return numbers.numel() == 0 or bool((numbers.min() >= 0) & (numbers.max() < classes))
