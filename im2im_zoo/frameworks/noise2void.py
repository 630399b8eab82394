"""Denoising learned from noisy images alone, by predicting voxels that are hidden: Noise2Void, N2V2 and structN2V."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.frameworks.blind_spots import BlindSpots, Strategy
from im2im_zoo.frameworks.supervision import Loss, check_weightable, weighted_loss


class Noise2Void(Framework):
    """A network learns to predict hidden voxels from what is around them (Krull et al. 2019, arXiv:1811.10980).

    What is independent from voxel to voxel cannot be predicted, and that is the noise. The loss is of hidden voxels only, and
    of those as much as the batch's `cost` says. In the package nothing is hidden.

    N2V2 (Höck et al. 2022, arXiv:2211.08512) is `strategy: median` with `im2im_zoo.networks.blur_pool_unet.BlurPoolUNet`. For
    noise that runs along an axis, structN2V (Broaddus et al. 2020, doi:10.1109/ISBI45749.2020.9098336), give `extent`.

    Args:
        network: maps (batch, channel, (z,) y, x) to the same shape.
        loss: of (prediction, target), of single voxels with the reduction "none", or taking a `weight`; default: the
            mean squared error. Another one than this predicts something else than the mean of the noisy values.
        strategy: what is seen in the place of a hidden voxel, see `BlindSpots`.
        masked_fraction: of the voxels of each channel that are hidden and predicted. The paper has 64 of a patch of 64 x 64,
            1 in 64; N2V2 0.2 percent.
        radius: of the neighbourhood, 5 voxels (11 along each axis) in the papers.
        extent: for each space axis (z,) y, x, how many voxels before and behind a predicted one are hidden too.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.

    Raises:
        TrainingError: arguments out of range, or a loss that cannot leave voxels out.
    """

    uses_cost = True
    uses_pairs = False
    uses_targets = False

    def __init__(
        self,
        network: nn.Module,
        loss: Loss | None = None,
        strategy: Strategy = "uniform",
        masked_fraction: float = 1 / 64,
        radius: int = 5,
        extent: Sequence[int] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.network = network
        self.loss: Loss = nn.MSELoss(reduction="none") if loss is None else loss
        check_weightable(self.loss)
        self._blind = BlindSpots(masked_fraction, strategy, radius, extent)
        self._optimizer, self._scheduler = optimizer, scheduler
        self._scheduler_interval = scheduler_interval

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss at hidden voxels, drawn anew for each batch."""
        loss = self.finite(self._loss(batch, None))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(batch["input"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss at hidden voxels, the same ones in each epoch."""
        drawn = torch.Generator(device=batch["input"].device).manual_seed(batch_idx)
        loss = self.finite(self._loss(batch, drawn), "val_loss")
        self.log("val_loss", loss, batch_size=len(batch["input"]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(
            self.network.parameters(), self._optimizer, self._scheduler, self._scheduler_interval
        )

    def exported_network(self) -> nn.Module:
        """The network itself."""
        return self.network

    def _loss(self, batch: Batch, generator: torch.Generator | None) -> Tensor:
        image, target = batch["input"], batch["target"]
        spots = self._blind.draw(image, generator)
        prediction = self.network(self._blind.hide(image, spots, generator))
        weight = spots.to(torch.float32)
        if "cost" in batch:
            weight = weight * batch["cost"]
        return weighted_loss(self.loss, prediction.float(), target.float(), weight, None)
