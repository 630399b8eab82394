"""pix2pixHD: paired translation with discriminators at several scales, whose features are matched."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
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
from im2im_zoo.losses.gan import GANLoss, Kind
from im2im_zoo.networks.patchgan import MultiScalePatchGAN

multi_scale: DiscriminatorFactory = partial(MultiScalePatchGAN, discriminator=patch_gan)


class Pix2PixHD(AdversarialFramework):
    """Paired translation with multi-scale discriminators and feature matching (Wang et al. 2018, arXiv:1711.11585).

    The discriminators see input and output together. The generator steps first, then the discriminators, from the same
    generated images. The generator's loss is the GAN loss, summed over the scales, plus `feature_weight` times the feature
    matching; no loss compares its output with the target voxel by voxel, so weight maps are ignored. The paper's
    perceptual loss is left out: its VGG is trained on photographs.

    Logs `train_loss` (the generator's), its parts `train_gan` and `train_features`, the discriminators' `d_loss`, and
    `val_loss`, the mean absolute error.

    Args:
        network: the generator, any; maps (batch, channel, (z,) y, x) to the target's shape.
        discriminator: of input and output, concatenated; built, or a factory (`call: false`) that is called with
            `spatial_dims` and `in_channels`, which are read from the network. Returns for each scale the outputs of all
            its layers, the scores last.
        gan_loss: vanilla, least_squares or hinge.
        feature_weight: of `feature_matching`, the paper's lambda.
        options: see `AdversarialOptions`.
    """

    cite = Citation(
        "Wang et al. 2018: High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
        "10.48550/arXiv.1711.11585",
    )

    def __init__(
        self,
        network: nn.Module,
        discriminator: nn.Module | DiscriminatorFactory = multi_scale,
        gan_loss: Kind = "least_squares",
        feature_weight: float = 10.0,
        **options: Unpack[AdversarialOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.discriminator = build_discriminator(discriminator, network, "both")
        self.gan = GANLoss(gan_loss)
        self._feature_weight = feature_weight

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Step the generator, then the discriminators."""
        image, target = batch["input"], batch["target"]
        fake = self(image)
        with self.alternate(GENERATOR, batch_idx) as backward_and_step:
            generated = self._discriminate(image, fake)
            with torch.no_grad():
                real = self._discriminate(image, target)
            gan = self.gan.generator(last_layers(generated))
            features = feature_matching(real, generated)
            loss = self.finite(gan + self._feature_weight * features)
            backward_and_step(loss)
        with self.alternate(DISCRIMINATOR, batch_idx) as backward_and_step:
            real, generated = self._discriminate(image, target), self._discriminate(image, fake.detach())
            d_loss = self.finite(self.gan.discriminator(last_layers(real), last_layers(generated)), "d_loss")
            backward_and_step(d_loss)
        parts = {"train_gan": gan, "train_features": features, "d_loss": d_loss}
        self.log_training(loss, len(image), parts)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the mean absolute error and the metrics of one batch."""
        prediction = self(batch["input"])
        self.log_validation(F.l1_loss(prediction, batch["target"]), len(prediction))
        self.log_metrics(prediction, batch["target"])

    def _discriminate(self, image: Tensor, output: Tensor) -> list[list[Tensor]]:
        return discriminate(self.discriminator, torch.cat([image, output.to(image)], 1))


def feature_matching(real: Sequence[Sequence[Tensor]], fake: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the distance of the discriminators' features of generated images from those of real ones, a scalar.

    It is the mean absolute difference of each layer of each scale except the scores, times 4 / layers / scales, as the
    authors' code weights them (there 4 / (n_layers + 1) / num_D, n_layers + 1 being the layers that are matched); the
    paper sums over the scales and divides by nothing but the elements of a layer.

    Args:
        real, fake: for each scale the outputs of all layers, the scores last. Those of real images get no gradient.

    Raises:
        ComponentError: a scale has no layer but its scores.
    """
    loss = torch.zeros((), device=fake[0][0].device)
    for real_layers, fake_layers in zip(real, fake, strict=True):
        matched = len(fake_layers) - 1
        if not matched:
            raise ComponentError(
                "framework.kwargs.discriminator returns its scores only, so there are no features to match; use one that "
                "returns the outputs of all its layers, like monai.networks.nets.PatchDiscriminator"
            )
        pairs = zip(real_layers[:-1], fake_layers[:-1], strict=True)
        differences = [F.l1_loss(f.float(), r.detach().float()) for r, f in pairs]
        loss = loss + 4 / matched / len(fake) * torch.stack(differences).sum()
    return loss
