"""Denoising learned from noisy images alone, of which a network sees some voxels and predicts the others: Self2Self."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.losses.weighted import weighted_mean
from im2im_zoo.networks.self2self_unet import Self2SelfUNet


class Self2Self(Framework):
    """A network learns to predict the voxels that it does not see (Quan et al. 2020, doi:10.1109/CVPR42600.2020.00196).

    For each batch the voxels that are seen are drawn at random, and so are the features that are dropped. The loss is the mean
    squared error of voxels that were not seen, each as much as the batch's `cost` says. The package averages several such
    predictions, whose masks are fixed: see `Self2SelfUNet`.

    The paper trains one network on one image, for that image. So does this where the images to train on are those to denoise;
    a package serves others like them as well.

    Args:
        network: a `Self2SelfUNet`, which says what part of the voxels is hidden.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.

    Raises:
        ComponentError: another network.
    """

    uses_cost = True
    uses_pairs = False
    uses_targets = False

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        if not isinstance(network, Self2SelfUNet):
            raise ComponentError(
                f"network: Self2Self needs one that takes a mask and averages passes, "
                f"im2im_zoo.networks.self2self_unet.Self2SelfUNet; it is {type(network).__name__}"
            )
        self.network = network
        self._optimizer, self._scheduler = optimizer, scheduler
        self._scheduler_interval = scheduler_interval

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss at voxels that are not seen, drawn anew for each batch and channel."""
        image = batch["input"]
        mask = (torch.rand(image.shape, device=image.device) >= self.network.masked).to(image.dtype)
        loss = self.finite(_loss(self.network.one_pass(image, mask), batch, mask))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(image))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one of the passes that the package averages, the same one of a batch in each epoch."""
        image, number = batch["input"], batch_idx % self.network.passes
        mask = self.network.mask(number, image)
        loss = self.finite(_loss(self.network.one_pass(image, mask, number), batch, mask), "val_loss")
        self.log("val_loss", loss, batch_size=len(image), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def exported_network(self) -> nn.Module:
        """The network, which averages its passes."""
        return self.network


def _loss(prediction: Tensor, batch: Batch, mask: Tensor) -> Tensor:
    """The mean squared error of what was not seen."""
    target = batch["target"]
    weight = (1 - mask).expand_as(target)
    if "cost" in batch:
        weight = weight * batch["cost"]
        prediction, target = (values.masked_fill(batch["cost"] == 0, 0) for values in (prediction, target))
    return weighted_mean((prediction.float() - target.float()) ** 2, weight)
