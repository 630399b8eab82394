"""FCN: supervised training of any fully convolutional network for regression and semantic segmentation."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import Batch, Framework, TrainingOptions
from im2im_zoo.frameworks.heteroscedastic import GaussianNLL, MeanAndVariance
from im2im_zoo.frameworks.supervision import Loss, check_weightable, deep_loss, heads_of, weighted_loss


class FCN(Framework):
    """A network trained to map inputs to targets by one loss (Long et al. 2015, arXiv:1411.4038).

    The loss is weighted by the batch's `cost`, if it has one; metrics are not. A network that returns several predictions
    in training is deeply supervised; in evaluation it has to return one.

    Args:
        network: maps (batch, channel, (z,) y, x) to the target's shape.
        loss: of (prediction, target) to a scalar; the prediction is without `activation`. With weight maps or
            `class_weights` it has to take a `weight`, or to be of single voxels with the reduction "none".
        activation: appended to the network in the package, not in training, e.g. a softmax where the loss takes
            logits.
        class_weights: weight of each channel of the target in the loss, at least 0.
        heteroscedastic: the network returns twice the target's channels, the means and then the logarithms of their
            variances, trained by `GaussianNLL` instead of a `loss`; the package returns means and variances.
        options: see `TrainingOptions`.

    Raises:
        TrainingError: arguments that contradict each other.
    """

    cite = Citation(
        "Long et al. 2015: Fully Convolutional Networks for Semantic Segmentation", "10.48550/arXiv.1411.4038"
    )
    uses_weight_maps = True
    can_rate_patches = True
    _class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        loss: Loss | None = None,
        *,
        activation: nn.Module | None = None,
        class_weights: Sequence[float] | None = None,
        heteroscedastic: bool = False,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.loss = _select_loss(loss, activation, heteroscedastic)
        self.activation = activation
        self.heteroscedastic = heteroscedastic
        self.register_buffer("_class_weights", _as_tensor(class_weights, self.loss), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the network's output without `activation`, for (batch, channel, (z,) y, x)."""
        output: Tensor = self.network(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch, over all predictions of the network."""
        target, cost = batch["target"], batch.get("cost")
        heads = heads_of(self.network(batch["input"]), target)

        def loss_of(part: slice) -> Tensor:
            weight = None if cost is None else cost[part]
            return deep_loss(self.loss, [h[part] for h in heads], target[part], weight, self._class_weights)

        loss = self.finite(loss_of(slice(None)))
        self.rate_patches(len(target), loss_of)
        self.log_training(loss, len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the metrics of one batch."""
        prediction, target = self(batch["input"]), batch["target"]
        loss = weighted_loss(self.loss, prediction, target, batch.get("cost"), self._class_weights)
        self.log_validation(loss, len(target))
        self.log_metrics(prediction[:, : target.shape[1]].float().contiguous(), target)

    def output_channels(self, target_channels: int) -> int:
        """Return the channels of the target, and as many variances if heteroscedastic."""
        return 2 * target_channels if self.heteroscedastic else target_channels

    def exported_network(self) -> nn.Module:
        """Return the network, followed by the activation, or by means and variances if heteroscedastic."""
        if self.heteroscedastic:
            return MeanAndVariance(self.network)
        return self.network if self.activation is None else nn.Sequential(self.network, self.activation)


def _select_loss(loss: Loss | None, activation: nn.Module | None, heteroscedastic: bool) -> Loss:
    if heteroscedastic and (loss is not None or activation is not None):
        raise TrainingError(
            "framework.kwargs.heteroscedastic: it sets the loss and the output of the package; remove loss and "
            "activation"
        )
    if heteroscedastic:
        return GaussianNLL()
    if loss is None:
        raise TrainingError("framework.kwargs.loss is missing; give a loss, e.g. torch.nn.MSELoss")
    return loss


def _as_tensor(class_weights: Sequence[float] | None, loss: Loss) -> Tensor | None:
    if class_weights is None:
        return None
    check_weightable(loss)
    weights = torch.tensor(class_weights, dtype=torch.float32)
    if weights.ndim != 1 or not (weights >= 0).all() or not weights.sum() > 0:
        raise TrainingError(
            f"framework.kwargs.class_weights: {class_weights}: give numbers of at least 0, not all of them 0"
        )
    return weights
