"""Supervised training of any fully convolutional network: regression and semantic segmentation."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.frameworks.heteroscedastic import GaussianNLL, MeanAndVariance
from im2im_zoo.frameworks.supervision import Loss, check_weightable, deep_loss, heads_of, weighted_loss


class FCN(Framework):
    """A network trained to map inputs to targets by one loss (Long et al. 2015, arXiv:1411.4038).

    Voxels count as much as the batch's `cost` says, if it has one. A network that gives several predictions in
    training is deeply supervised; in evaluation it has to give one.

    Args:
        network: maps (batch, channel, (z,) y, x) to the target's shape.
        loss: of (prediction, target) to a scalar; the prediction is without `activation`. With cost maps or
            `class_weights` it has to take a `weight`, or to be of single voxels with the reduction "none".
        metrics: name -> torchmetrics.Metric of (prediction, target), logged in validation as `val_<name>`. All voxels
            count alike in them.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.
        activation: put behind the network in the package, not in training, e.g. a softmax where the loss takes
            logits.
        class_weights: how much each channel of the target counts in the loss, at least 0.
        heteroscedastic: the network gives twice the target's channels, the means and then the logarithms of their
            variances, trained by `GaussianNLL` instead of a `loss`; the package gives means and variances.

    Raises:
        TrainingError: arguments that do not go together.
    """

    uses_cost = True
    can_rate_patches = True
    _class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        activation: nn.Module | None = None,
        class_weights: Sequence[float] | None = None,
        heteroscedastic: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = _loss_of(loss, activation, heteroscedastic)
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self.activation = activation
        self.heteroscedastic = heteroscedastic
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._scheduler_interval = scheduler_interval
        self.register_buffer("_class_weights", _weights_of(class_weights, self.loss), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """The network's output without `activation`, of (batch, channel, (z,) y, x)."""
        output: Tensor = self.network(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, over all predictions of the network."""
        target, cost = batch["target"], batch.get("cost")
        heads = heads_of(self.network(batch["input"]), target)

        def loss_of(part: slice) -> Tensor:
            chosen = None if cost is None else cost[part]
            return deep_loss(self.loss, [h[part] for h in heads], target[part], chosen, self._class_weights)

        loss = self.finite(loss_of(slice(None)))
        self.rate_patches(len(target), loss_of)
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the metrics of one batch, averaged or accumulated over the epoch."""
        prediction, target, size = self(batch["input"]), batch["target"], len(batch["input"])
        loss = weighted_loss(self.loss, prediction, target, batch.get("cost"), self._class_weights)
        self.log("val_loss", self.finite(loss, "val_loss"), batch_size=size, sync_dist=True)
        for name, metric in self.metrics.items():
            metric(prediction[:, : target.shape[1]].float().contiguous(), target)
            self.log(f"val_{name}", cast(Metric, metric), on_step=False, on_epoch=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def output_channels(self, target_channels: int) -> int:
        """Those of the target; of a heteroscedastic network their variances follow."""
        return 2 * target_channels if self.heteroscedastic else target_channels

    def exported_network(self) -> nn.Module:
        """The network, followed by the activation if there is one; means and variances if it is heteroscedastic."""
        if self.heteroscedastic:
            return MeanAndVariance(self.network)
        return self.network if self.activation is None else nn.Sequential(self.network, self.activation)


def _loss_of(loss: Loss | None, activation: nn.Module | None, heteroscedastic: bool) -> Loss:
    if heteroscedastic and (loss is not None or activation is not None):
        raise TrainingError(
            "framework.kwargs.heteroscedastic: the loss is given by it, and the package's output too; remove loss and "
            "activation"
        )
    if heteroscedastic:
        return GaussianNLL()
    if loss is None:
        raise TrainingError("framework.kwargs.loss is missing: name a loss, e.g. torch.nn.MSELoss")
    return loss


def _weights_of(class_weights: Sequence[float] | None, loss: Loss) -> Tensor | None:
    if class_weights is None:
        return None
    check_weightable(loss)
    weights = torch.tensor(class_weights, dtype=torch.float32)
    if weights.ndim != 1 or not (weights >= 0).all() or not weights.sum() > 0:
        raise TrainingError(
            f"framework.kwargs.class_weights: {class_weights} has to be numbers of at least 0, not all of them 0"
        )
    return weights
