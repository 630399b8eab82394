"""Probabilistic U-Net: supervised training where several targets would be right."""

from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from im2im_zoo.core.citation import Citation
from im2im_zoo.frameworks.base import Batch, Framework, TrainingOptions
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.networks.probabilistic_unet import GaussianEncoder, ProbabilisticUNet


class Probabilistic(Framework):
    """A U-Net with a latent that selects one of several plausible targets (Kohl et al. 2018, arXiv:1806.05034).

    In training the latent is drawn from a posterior, which also sees the target; the prior, which sees the input only,
    learns to match it. The loss is the negative evidence lower bound per voxel: the loss of the output, plus `beta` times
    the divergence of the posterior from the prior, over the number of target values.

    Logs `train_loss` and its parts `train_likelihood` and `train_kl`, and `val_loss` and `val_kl`, where the latent is the
    posterior's mean. `kl` is in nats per latent: if it falls to about 0 the latent carries no information (posterior
    collapse), all variances are 0, and a smaller `beta` is needed. Metrics are of the mean output, which is probabilities
    if the network has an activation.

    Args:
        network: a `ProbabilisticUNet`; its docstring says what is local.
        loss: of (output, target), the negative logarithm of the target's likelihood: of single voxels with the reduction
            "none" or their mean, e.g. torch.nn.BCEWithLogitsLoss. With weight maps as in `FCN`.
        beta: weight of the divergence; 1 is the bound itself.
        target_channels: of the target, if other than the network's `out_channels`: 1 for class numbers.
        options: see `TrainingOptions`.
    """

    cite = Citation(
        "Kohl et al. 2018: A Probabilistic U-Net for Segmentation of Ambiguous Images",
        "10.48550/arXiv.1806.05034",
    )
    uses_weight_maps = True
    network: ProbabilisticUNet

    def __init__(
        self,
        network: ProbabilisticUNet,
        loss: Loss,
        beta: float = 1.0,
        target_channels: int | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.posterior = network.encoder(network.in_channels + (target_channels or network.out_channels))
        self.loss = loss
        self.beta = beta

    def trained_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters of the network and the posterior."""
        return self.parameters()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the negative bound of one batch, with latents drawn from the posterior."""
        posterior, prior = self._posterior_and_prior(batch)
        likelihood, kl = self._parts(batch, posterior, prior, posterior.rsample())
        loss = self.finite(self._bound(batch, likelihood, kl))
        parts = {"train_likelihood": likelihood, "train_kl": kl.mean()}
        self.log_training(loss, len(batch["target"]), parts)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the negative bound, the divergence, and the metrics of the mean output."""
        target = batch["target"]
        posterior, prior = self._posterior_and_prior(batch)
        likelihood, kl = self._parts(batch, posterior, prior, posterior.mean)
        self.log("val_kl", kl.mean(), batch_size=len(target), sync_dist=True)
        mean = self.network(batch["input"])[:, : self.network.out_channels].contiguous()
        self.log_validation(self._bound(batch, likelihood, kl), len(target))
        self.log_metrics(mean, target)

    def output_channels(self, target_channels: int) -> int:
        """Return the channels of the target, or of the class probabilities, and as many variances."""
        return 2 * self.network.out_channels

    def _posterior_and_prior(self, batch: Batch) -> tuple[Normal, Normal]:
        """Return the distributions of the latents given input and target, and given the input."""
        image = batch["input"]
        both = torch.cat([image, batch["target"].to(image)], 1)
        return _normal(self.posterior, both), _normal(self.network.prior, image)

    def _parts(
        self, batch: Batch, posterior: Normal, prior: Normal, latents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of the output for some latents, and the divergence of each latent, (batch, (z,) y, x)."""
        output = self.network.decode(self.network.trunk(batch["input"]), latents)
        likelihood = weighted_loss(self.loss, output, batch["target"], batch.get("cost"), None)
        return likelihood, kl_divergence(posterior, prior).sum(1)

    def _bound(self, batch: Batch, likelihood: Tensor, kl: Tensor) -> Tensor:
        return likelihood + self.beta * kl.sum() / batch["target"].numel()


def _normal(encoder: GaussianEncoder, image: Tensor) -> Normal:
    mean, deviation = encoder(image)
    return Normal(mean.float(), deviation.float())
