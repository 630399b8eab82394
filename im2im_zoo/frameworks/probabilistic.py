"""Supervised training where a target is one of several that would be right: the Probabilistic U-Net."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torchmetrics import Metric

from im2im_zoo.frameworks.adversarial import log_losses, log_validation
from im2im_zoo.frameworks.base import (
    Batch,
    Framework,
    OptimizerFactory,
    SchedulerFactory,
    adam,
    configured,
)
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.networks.probabilistic_unet import GaussianEncoder, ProbabilisticUNet


class Probabilistic(Framework):
    """A U-Net with a latent that says which of several right targets is meant (Kohl et al. 2018, arXiv:1806.05034).

    A posterior, which sees the target too, gives the latent in training; the prior, which sees the input only, learns to be
    like it. What is minimised is the negative evidence lower bound of a voxel: the loss of the output, and `beta` times the
    divergence of the posterior from the prior, over the number of target values.

    Logs `train_loss` and its parts `train_likelihood` and `train_kl`, and `val_loss` and `val_kl`, where the latent is the
    posterior's mean. `kl` is in nats a latent: where it falls to about 0 the latent says nothing (posterior collapse), all
    variances are 0, and a smaller `beta` is needed.

    Args:
        network: see there for what is local and what is not.
        loss: of (output, target), the negative logarithm of the target's likelihood: of single voxels with the reduction
            "none" or their mean, e.g. torch.nn.BCEWithLogitsLoss. With cost maps as in `FCN`.
        beta: weight of the divergence; 1 is the bound itself.
        target_channels: of the target, if other than the network's `out_channels`: 1 for class numbers.
        metrics: name -> torchmetrics.Metric of (mean output, target), logged in validation as `val_<name>`; of
            probabilities where the network has an activation.
        optimizer: makes the optimizer of the parameters; `call: false` in a recipe.
        scheduler: makes a learning-rate schedule of the optimizer; `call: false` in a recipe.
        scheduler_interval: whether the schedule advances every epoch or every step.
    """

    uses_cost = True

    def __init__(
        self,
        network: ProbabilisticUNet,
        loss: Loss,
        beta: float = 1.0,
        target_channels: int | None = None,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        self.network = network
        self.posterior = network.encoder(network.in_channels + (target_channels or network.out_channels))
        self.loss = loss
        self.beta = beta
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self._optimizer = optimizer
        self._schedule = (scheduler, scheduler_interval)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The negative bound of one batch, with latents drawn from the posterior."""
        posterior, prior = self._beliefs(batch)
        likelihood, kl = self._parts(batch, posterior, prior, posterior.rsample())
        loss = self.finite(self._bound(batch, likelihood, kl))
        log_losses(self, loss, {"train_likelihood": likelihood, "train_kl": kl.mean()}, len(batch["target"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the negative bound, the divergence, and the metrics of what the package would give."""
        target = batch["target"]
        posterior, prior = self._beliefs(batch)
        likelihood, kl = self._parts(batch, posterior, prior, posterior.mean)
        self.log("val_kl", kl.mean(), batch_size=len(target), sync_dist=True)
        mean = self.network(batch["input"])[:, : self.network.out_channels].contiguous()
        log_validation(self, self.metrics, mean, target, self._bound(batch, likelihood, kl))

    def configure_optimizers(self) -> Any:
        """The optimizer and its schedule."""
        return configured(self.parameters(), self._optimizer, *self._schedule)

    def output_channels(self, target_channels: int) -> int:
        """Those of the target, or a probability of each class, and their variances."""
        return 2 * self.network.out_channels

    def exported_network(self) -> nn.Module:
        """The network, with its prior and without the posterior."""
        return self.network

    def _beliefs(self, batch: Batch) -> tuple[Normal, Normal]:
        """Posterior and prior of the latents."""
        image = batch["input"]
        seen = torch.cat([image, batch["target"].to(image)], 1)
        return _normal(self.posterior, seen), _normal(self.network.prior, image)

    def _parts(
        self, batch: Batch, posterior: Normal, prior: Normal, latents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The loss of the output for some latents, and the divergence of each, (batch, (z,) y, x)."""
        output = self.network.decode(self.network.trunk(batch["input"]), latents)
        likelihood = weighted_loss(self.loss, output, batch["target"], batch.get("cost"), None)
        return likelihood, kl_divergence(posterior, prior).sum(1)

    def _bound(self, batch: Batch, likelihood: Tensor, kl: Tensor) -> Tensor:
        return likelihood + self.beta * kl.sum() / batch["target"].numel()


def _normal(encoder: GaussianEncoder, image: Tensor) -> Normal:
    mean, deviation = encoder(image)
    return Normal(mean.float(), deviation.float())
