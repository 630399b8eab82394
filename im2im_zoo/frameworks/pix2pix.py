"""pix2pix: paired translation with one conditional discriminator."""

from typing import Unpack

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.frameworks.adversarial import (
    DISCRIMINATOR,
    GENERATOR,
    AdversarialFramework,
    AdversarialOptions,
    DiscriminatorFactory,
    build_discriminator,
    discriminate,
    last_layers,
    patch_gan,
)
from im2im_zoo.frameworks.base import Batch
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.losses.gan import GANLoss, Kind


class Pix2Pix(AdversarialFramework):
    """Paired translation with a conditional GAN (Isola et al. 2017, arXiv:1611.07004).

    The discriminator sees input and output together. It steps first, then the generator, whose loss is the GAN loss
    plus `reconstruction_weight` times the reconstruction loss. As in the paper the discriminator's loss is halved. Unlike
    the paper's, the exported network has no dropout and uses batch norm's running statistics: it is deterministic.

    Logs `train_loss` (the generator's), its parts `train_gan` and `train_reconstruction`, the discriminator's `d_loss`,
    and `val_loss`, the reconstruction loss.

    Args:
        network: the generator; maps (batch, channel, (z,) y, x) to the target's shape.
        discriminator: of input and output, concatenated; built, or a factory (`call: false`) that is called with
            `spatial_dims` and `in_channels`, which are read from the network. `adversarial.discriminate` says what it
            may return.
        gan_loss: vanilla, least_squares or hinge.
        reconstruction: of (prediction, target) to a scalar; the mean absolute error by default. With weight maps it
            has to take a `weight`, or to be of single voxels with the reduction "none".
        reconstruction_weight: the paper's lambda.
        options: see `AdversarialOptions`.
    """

    cite = Citation(
        "Isola et al. 2017: Image-to-Image Translation with Conditional Adversarial Networks",
        "10.48550/arXiv.1611.07004",
    )
    uses_weight_maps = True
    can_rate_patches = True

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module | DiscriminatorFactory = patch_gan,
        gan_loss: Kind = "vanilla",
        reconstruction: Loss | None = None,
        reconstruction_weight: float = 100.0,
        **options: Unpack[AdversarialOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.discriminator = build_discriminator(discriminator, network, "both")
        self.gan = GANLoss(gan_loss)
        self.reconstruction = reconstruction or nn.L1Loss(reduction="none")
        self._reconstruction_weight = reconstruction_weight

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Step the discriminator, then the generator."""
        image, target = batch["input"], batch["target"]
        fake = self(image)
        with self.alternate(DISCRIMINATOR, batch_idx) as backward_and_step:
            real, generated = self._scores(image, target), self._scores(image, fake.detach())
            d_loss = self.finite(self.gan.discriminator(real, generated), "d_loss")
            backward_and_step(d_loss)
        with self.alternate(GENERATOR, batch_idx) as backward_and_step:
            gan = self.gan.generator(self._scores(image, fake))
            reconstruction = self._reconstruction_loss(fake, batch)
            loss = self.finite(gan + self._reconstruction_weight * reconstruction)
            backward_and_step(loss)
        self.rate_patches(
            len(image),
            lambda part: self._reconstruction_loss(fake[part], {k: v[part] for k, v in batch.items()}),
        )
        parts = {"train_gan": gan, "train_reconstruction": reconstruction, "d_loss": d_loss}
        self.log_training(loss, len(image), parts)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the reconstruction loss and the metrics of one batch."""
        prediction = self(batch["input"])
        self.log_validation(self._reconstruction_loss(prediction, batch), len(prediction))
        self.log_metrics(prediction, batch["target"])

    def _reconstruction_loss(self, prediction: Tensor, batch: Batch) -> Tensor:
        cost = batch.get("cost")
        return weighted_loss(self.reconstruction, prediction, batch["target"], cost, None, "reconstruction")

    def _scores(self, image: Tensor, output: Tensor) -> list[Tensor]:
        return last_layers(discriminate(self.discriminator, torch.cat([image, output.to(image)], 1)))
