"""Paired translation with one conditional discriminator."""

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from im2im_zoo.frameworks.adversarial import (
    DiscriminatorFactory,
    Interval,
    Turns,
    fitting,
    judge,
    judgements,
    log_losses,
    log_validation,
    paper_adam,
    patch_gan,
    scheduled,
)
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerFactory, SchedulerFactory
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.losses.gan import GANLoss, Kind

GENERATOR, DISCRIMINATOR = 0, 1


class Pix2Pix(Framework):
    """Paired translation with a conditional GAN (Isola et al. 2017, arXiv:1611.07004).

    The discriminator judges input and output together. It steps first, then the generator, by the GAN loss plus
    `reconstruction_weight` times the reconstruction loss. As in the paper the discriminator's loss is halved. Other
    than there the exported network has no dropout and takes batch norm's running statistics: it is deterministic.

    Logs `train_loss` (the generator's), its parts `train_gan` and `train_reconstruction`, the discriminator's `d_loss`,
    and `val_loss`, the reconstruction loss.

    Args:
        network: the generator; maps (batch, channel, (z,) y, x) to the target's shape.
        discriminator: of input and output, concatenated; built, or a factory (`call: false`) that is called with
            `spatial_dims` and `in_channels`, which are read off the network. What it gives is told in
            `adversarial.judge`.
        gan_loss: vanilla, least_squares or hinge.
        reconstruction: of (prediction, target) to a scalar; the mean absolute error by default. With cost maps it has
            to take a `weight`, or to be of single voxels with the reduction "none".
        reconstruction_weight: the paper's lambda.
        metrics: name -> torchmetrics.Metric of (prediction, target), logged in validation as `val_<name>`.
        optimizer, discriminator_optimizer: make the optimizers of the two networks; `call: false` in a recipe.
        scheduler: makes the schedule of each optimizer; `call: false`; e.g. `adversarial.linear_decay`.
        scheduler_interval: whether the schedules advance every epoch or every step.
    """

    uses_cost = True
    can_rate_patches = True

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module | DiscriminatorFactory = patch_gan,
        gan_loss: Kind = "vanilla",
        reconstruction: Loss | None = None,
        reconstruction_weight: float = 100.0,
        metrics: Mapping[str, Metric] | None = None,
        optimizer: OptimizerFactory = paper_adam,
        discriminator_optimizer: OptimizerFactory = paper_adam,
        scheduler: SchedulerFactory | None = None,
        scheduler_interval: Interval = "epoch",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.discriminator = fitting(discriminator, network, "both")
        self.gan = GANLoss(gan_loss)
        self.reconstruction = reconstruction or nn.L1Loss(reduction="none")
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self._reconstruction_weight = reconstruction_weight
        self._optimizers = (optimizer, discriminator_optimizer)
        self._schedule = (scheduler, scheduler_interval)
        self._turns = Turns(None, None, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The generator's output, of (batch, channel, (z,) y, x)."""
        output: Tensor = self.network(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """A step of the discriminator, then one of the generator."""
        image, target = batch["input"], batch["target"]
        fake = self(image)
        with self._turns.turn(self, DISCRIMINATOR, batch_idx) as descend:
            d_loss = self.finite(
                self.gan.discriminator(self._judge(image, target), self._judge(image, fake.detach())),
                "d_loss",
            )
            descend(d_loss)
        with self._turns.turn(self, GENERATOR, batch_idx) as descend:
            gan = self.gan.generator(self._judge(image, fake))
            reconstruction = self._reconstruct(fake, batch)
            loss = self.finite(gan + self._reconstruction_weight * reconstruction)
            descend(loss)
        self.rate_patches(
            len(image), lambda part: self._reconstruct(fake[part], {k: v[part] for k, v in batch.items()})
        )
        parts = {"train_gan": gan, "train_reconstruction": reconstruction, "d_loss": d_loss}
        log_losses(self, loss, parts, len(image))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the reconstruction loss and the metrics of one batch."""
        prediction = self(batch["input"])
        loss = self._reconstruct(prediction, batch)
        log_validation(self, self.metrics, prediction, batch["target"], loss)

    def _reconstruct(self, prediction: Tensor, batch: Batch) -> Tensor:
        cost = batch.get("cost")
        return weighted_loss(self.reconstruction, prediction, batch["target"], cost, None, "reconstruction")

    def configure_optimizers(self) -> Any:
        """The optimizers of generator and discriminator, and their schedules."""
        networks = (self.network, self.discriminator)
        made = [make(n.parameters()) for make, n in zip(self._optimizers, networks, strict=True)]
        return scheduled(made, *self._schedule)

    def configure_callbacks(self) -> list[pl.Callback]:
        """The turns of the two, by the trainer's options."""
        self._turns = Turns.taken_over(self.trainer)
        return [self._turns]

    def exported_network(self) -> nn.Module:
        """The generator."""
        return self.network

    def _judge(self, image: Tensor, output: Tensor) -> list[Tensor]:
        return judgements(judge(self.discriminator, torch.cat([image, output.to(image)], 1)))
