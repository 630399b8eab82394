"""Diffusion: paired translation by conditional denoising diffusion."""

from typing import Unpack

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.frameworks.base import Batch, Framework, TrainingOptions
from im2im_zoo.frameworks.supervision import Loss, weighted_loss
from im2im_zoo.networks.ddim import DDIM


class Diffusion(Framework):
    """A network learns to remove noise from targets, given the inputs (SR3: Saharia et al. 2021, arXiv:2104.07636;
    Palette: arXiv:2111.05826; training as in Ho et al. 2020, arXiv:2006.11239).

    Each target gets the Gaussian noise of a random time; the times of a batch are evenly apart (Kingma et al. 2021,
    arXiv:2107.00630). The target should have zero mean and unit variance, or the limits -1 and 1, as noise has. The
    exported network samples by a few deterministic steps, see `DDIM`. Validation uses the same noise and times in each
    epoch. `train_loss` and `val_loss` are of the noise removal; metrics are of the mean of the samples, which costs steps
    times samples evaluations.

    Args:
        network: a `DDIM`, e.g. of `networks.ddim.timed_unet_ddim`.
        loss: of (output of the denoiser, its target); the mean squared error by default. With weight maps it has to take
            a `weight`, or to be of single voxels with the reduction "none".
        options: see `TrainingOptions`.
    """

    cite = Citation(
        "Saharia et al. 2022: Palette: Image-to-Image Diffusion Models", "10.48550/arXiv.2111.05826"
    )
    uses_weight_maps = True
    network: DDIM

    def __init__(
        self,
        network: DDIM,
        loss: Loss | None = None,
        **options: Unpack[TrainingOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.loss = loss or nn.MSELoss(reduction="none")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of one batch at random times."""
        target = batch["target"]
        offset = torch.rand((), device=target.device)
        loss = self.finite(self._loss(batch, torch.randn_like(target), offset))
        self.log_training(loss, len(target))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one batch at fixed times, and the metrics of the samples."""
        image, target = batch["input"], batch["target"]
        random = torch.Generator().manual_seed(batch_idx)
        noise = torch.randn(target.shape, generator=random).to(target)
        loss = self._loss(batch, noise, torch.rand((), generator=random).to(target))
        self.log_validation(loss, len(target))
        if self.metrics:
            self.log_metrics(self.network(image)[:, : target.shape[1]].contiguous(), target)

    def output_channels(self, target_channels: int) -> int:
        """Return the channels of the target, and as many variances if the network returns them."""
        return 2 * target_channels if self.network.variance else target_channels

    def _loss(self, batch: Batch, noise: Tensor, offset: Tensor) -> Tensor:
        """Return the loss at evenly spaced times, shifted by `offset`, 0 to 1, of their spacing."""
        image, target = batch["input"], batch["target"]
        part = (torch.arange(len(target), device=target.device) + offset) / len(target)
        times = (part * len(self.network.levels)).long().clamp(max=len(self.network.levels) - 1)
        noisy, wanted = self.network.noised(target, noise, times)
        output = self.network.denoise(noisy, image, times)
        return weighted_loss(self.loss, output, wanted, batch.get("cost"), None)
