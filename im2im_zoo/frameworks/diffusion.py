"""Paired translation by conditional denoising diffusion."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from im2im_zoo.frameworks.adversarial import log_validation
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.networks.ddim import DDIM


class Diffusion(Framework):
    """A network learns to remove noise from targets, given the inputs (SR3: Saharia et al. 2021, arXiv:2104.07636;
    Palette: arXiv:2111.05826; training as in Ho et al. 2020, arXiv:2006.11239).

    Each target gets Gaussian noise as it has at a random time, those of a batch evenly apart (Kingma et al. 2021,
    arXiv:2107.00630). The target should have zero mean and unit variance, or the limits -1 and 1: noise has. The exported
    network samples by a few deterministic steps, see `DDIM`. Validation takes the same noise and times in each epoch.

    Logs `train_loss`, and `val_loss`, both of the noise removal.

    Args:
        network: a `DDIM`, e.g. of `networks.ddim.timed_unet_ddim`.
        loss: of (what the denoiser gives, what it has to); the mean squared error by default. With cost maps it has to take a
            `weight`, or to be of single voxels with the reduction "none".
        metrics: name -> torchmetrics.Metric of (mean of the samples, target), logged in validation as `val_<name>`; what is
            sampled costs steps times samples evaluations.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.
    """

    uses_cost = True

    def __init__(
        self,
        network: DDIM,
        loss: Loss | None = None,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss or nn.MSELoss(reduction="none")
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self._optimizer = optimizer
        self._schedule = (scheduler, scheduler_interval)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch at random times."""
        target = batch["target"]
        offset = torch.rand((), device=target.device)
        loss = self.finite(self._loss(batch, torch.randn_like(target), offset))
        self.log("train_loss", loss, on_step=True, on_epoch=True, batch_size=len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch at fixed times, and the metrics of what is sampled."""
        image, target = batch["input"], batch["target"]
        random = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(target.shape, generator=random).to(target)
        loss = self._loss(batch, noise, torch.rand((), generator=random).to(target))
        mean = self.network(image)[:, : target.shape[1]].contiguous() if self.metrics else target
        log_validation(self, self.metrics, mean, target, loss)

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(self.network.parameters(), self._optimizer, *self._schedule)

    def output_channels(self, target_channels: int) -> int:
        """Those of the target; their variances follow if the network gives them."""
        return 2 * target_channels if self.network.variance else target_channels

    def exported_network(self) -> nn.Module:
        """The sampler."""
        return self.network

    def _loss(self, batch: Batch, noise: Tensor, offset: Tensor) -> Tensor:
        """The loss at times that are evenly apart, moved on by `offset`, 0 to 1, of what is between them."""
        image, target = batch["input"], batch["target"]
        part = (torch.arange(len(target), device=target.device) + offset) / len(target)
        times = (part * len(self.network.levels)).long().clamp(max=len(self.network.levels) - 1)
        noisy, wanted = self.network.noised(target, noise, times)
        output = self.network.denoise(noisy, image, times)
        return weighted_loss(self.loss, output, wanted, batch.get("cost"), None)
