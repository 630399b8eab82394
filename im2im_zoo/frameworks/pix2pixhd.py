"""Paired translation with discriminators at several scales, whose features are matched."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from im2im_zoo.core.errors import ComponentError
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
from im2im_zoo.losses.gan import GANLoss, Kind
from im2im_zoo.networks.patchgan import MultiScalePatchGAN

GENERATOR, DISCRIMINATOR = 0, 1

multi_scale: DiscriminatorFactory = partial(MultiScalePatchGAN, discriminator=patch_gan)


class Pix2PixHD(Framework):
    """Paired translation with multi-scale discriminators and feature matching (Wang et al. 2018, arXiv:1711.11585).

    The discriminators judge input and output together. The generator steps first, then the discriminators, by what both
    were before. It learns by the GAN loss, summed over the scales, plus `feature_weight` times the feature matching;
    no loss compares its output with the target voxel by voxel, so cost maps have no say. The paper's perceptual loss
    is left out: its VGG knows photographs.

    Logs `train_loss` (the generator's), its parts `train_gan` and `train_features`, the discriminators' `d_loss`, and
    `val_loss`, the mean absolute error.

    Args:
        network: the generator, any; maps (batch, channel, (z,) y, x) to the target's shape.
        discriminator: of input and output, concatenated; built, or a factory (`call: false`) that is called with
            `spatial_dims` and `in_channels`, which are read off the network. Gives for each scale the outputs of all
            its layers, the judgement last.
        gan_loss: vanilla, least_squares or hinge.
        feature_weight: of `feature_matching`, the paper's lambda.
        metrics: name -> torchmetrics.Metric of (prediction, target), logged in validation as `val_<name>`.
        optimizer, discriminator_optimizer: make the optimizers of the two networks; `call: false` in a recipe.
        scheduler: makes the schedule of each optimizer; `call: false`; e.g. `adversarial.linear_decay`.
        scheduler_interval: whether the schedules advance every epoch or every step.
    """

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module | DiscriminatorFactory = multi_scale,
        gan_loss: Kind = "least_squares",
        feature_weight: float = 10.0,
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
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self._feature_weight = feature_weight
        self._optimizers = (optimizer, discriminator_optimizer)
        self._schedule = (scheduler, scheduler_interval)
        self._turns = Turns(None, None, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The generator's output, of (batch, channel, (z,) y, x)."""
        output: Tensor = self.network(image)
        return output

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """A step of the generator, then one of the discriminators."""
        image, target = batch["input"], batch["target"]
        fake = self(image)
        with self._turns.turn(self, GENERATOR, batch_idx) as descend:
            judged = self._judge(image, fake)
            with torch.no_grad():
                real = self._judge(image, target)
            gan = self.gan.generator(judgements(judged))
            features = feature_matching(real, judged)
            loss = self.finite(gan + self._feature_weight * features)
            descend(loss)
        with self._turns.turn(self, DISCRIMINATOR, batch_idx) as descend:
            real, judged = self._judge(image, target), self._judge(image, fake.detach())
            d_loss = self.finite(self.gan.discriminator(judgements(real), judgements(judged)), "d_loss")
            descend(d_loss)
        parts = {"train_gan": gan, "train_features": features, "d_loss": d_loss}
        log_losses(self, loss, parts, len(image))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean absolute error and the metrics of one batch."""
        prediction = self(batch["input"])
        loss = F.l1_loss(prediction, batch["target"])
        log_validation(self, self.metrics, prediction, batch["target"], loss)

    def configure_optimizers(self) -> Any:
        """The optimizers of generator and discriminators, and their schedules."""
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

    def _judge(self, image: Tensor, output: Tensor) -> list[list[Tensor]]:
        return judge(self.discriminator, torch.cat([image, output.to(image)], 1))


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """How far the discriminators' features of generated images are from those of real ones: a scalar.

    The mean absolute difference of each layer of each scale but the judgements, times 4 / layers / scales, as the
    authors' code weights them (there 4 / (n_layers + 1) / num_D, n_layers + 1 being the layers that are matched); the
    paper sums over the scales and divides by nothing but the elements of a layer.

    Args:
        real, fake: for each scale the outputs of all layers, the judgement last. Those of real images are not learnt from.

    Raises:
        ComponentError: a scale has no layer but its judgement.
    """
    loss = torch.zeros((), device=fake[0][0].device)
    for real_layers, fake_layers in zip(real, fake, strict=True):
        matched = len(fake_layers) - 1
        if not matched:
            raise ComponentError(
                "framework.kwargs.discriminator gives its judgement only: there are no features to match; use one that "
                "gives the outputs of all its layers, like monai.networks.nets.PatchDiscriminator"
            )
        pairs = zip(real_layers[:-1], fake_layers[:-1], strict=True)
        differences = [F.l1_loss(f.float(), r.detach().float()) for r, f in pairs]
        loss = loss + 4 / matched / len(fake) * torch.stack(differences).sum()
    return loss
