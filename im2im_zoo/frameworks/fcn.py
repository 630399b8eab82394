"""Supervised training of any fully convolutional network: regression and semantic segmentation."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

from torch import Tensor, nn
from torchmetrics import Metric

from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)


class FCN(Framework):
    """A network trained to map inputs to targets by one loss (Long et al. 2015, arXiv:1411.4038).

    Args:
        network: maps (batch, channel, (z,) y, x) to the target's shape.
        loss: of (prediction, target) to a scalar; the prediction is without `activation`.
        metrics: name -> torchmetrics.Metric of (prediction, target), logged in validation as `val_<name>`.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.
        activation: put behind the network in the package, not in training, e.g. a softmax where the loss takes
            logits.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self.activation = activation
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._scheduler_interval = scheduler_interval

    def forward(self, image: Tensor) -> Tensor:
        """The network's output without `activation`, of (batch, channel, (z,) y, x)."""
        output: Tensor = self.network(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch."""
        loss = self.finite(self.loss(self(batch["input"]), batch["target"]))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["input"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss and the metrics of one batch, averaged or accumulated over the epoch."""
        prediction, size = self(batch["input"]), len(batch["input"])
        loss = self.finite(self.loss(prediction, batch["target"]), "val_loss")
        self.log("val_loss", loss, batch_size=size, sync_dist=True)
        for name, metric in self.metrics.items():
            metric(prediction.float(), batch["target"])
            self.log(f"val_{name}", cast(Metric, metric), on_step=False, on_epoch=True, batch_size=size)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def exported_network(self) -> nn.Module:
        """The network, followed by the activation if there is one."""
        return self.network if self.activation is None else nn.Sequential(self.network, self.activation)
