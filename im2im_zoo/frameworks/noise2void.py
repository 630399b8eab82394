"""Noise2Void, N2V2 and structN2V: denoising learned from noisy images only, by predicting masked voxels."""

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerOptions
from im2im_zoo.frameworks.blind_spots import BlindSpots, Strategy
from im2im_zoo.frameworks.supervision import Loss, check_weightable, weighted_loss


class Noise2Void(Framework):
    """A network learns to predict hidden voxels from what is around them (Krull et al. 2019, arXiv:1811.10980).

    Noise that is independent from voxel to voxel cannot be predicted. The loss is of hidden voxels only, weighted by the
    batch's `cost`. In the package nothing is hidden.

    N2V2 (Höck et al. 2022, arXiv:2211.08512) is `strategy: median` with `im2im_zoo.networks.blur_pool_unet.BlurPoolUNet`. For
    noise that runs along an axis, structN2V (Broaddus et al. 2020, doi:10.1109/ISBI45749.2020.9098336), give `extent`.

    Args:
        network: maps (batch, channel, (z,) y, x) to the same shape.
        loss: of (prediction, target), of single voxels with the reduction "none", or taking a `weight`; default: the
            mean squared error, with which the network predicts the mean of the noisy values.
        strategy: what replaces a hidden voxel, see `BlindSpots`.
        masked_fraction: of the voxels of each channel that are hidden and predicted. The paper uses 64 of a patch of
            64 x 64, 1 in 64; N2V2 0.2 percent.
        radius: of the neighbourhood, 5 voxels (11 along each axis) in the papers.
        extent: for each space axis (z,) y, x, how many voxels before and behind a predicted one are hidden too.
        options: see `OptimizerOptions`.

    Raises:
        TrainingError: an argument out of range, or a loss that cannot ignore voxels.
    """

    cite = Citation(
        "Krull et al. 2019: Noise2Void - Learning Denoising from Single Noisy Images",
        "10.48550/arXiv.1811.10980",
    )
    uses_weight_maps = True
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
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(**options)
        self.network = network
        self.loss: Loss = nn.MSELoss(reduction="none") if loss is None else loss
        check_weightable(self.loss)
        self._blind = BlindSpots(masked_fraction, strategy, radius, extent)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss at hidden voxels, drawn again for each batch."""
        loss = self.finite(self._loss(batch, None))
        self.log_training(loss, len(batch["input"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss at hidden voxels, the same ones in each epoch."""
        generator = torch.Generator(device=batch["input"].device).manual_seed(batch_idx)
        self.log_validation(self._loss(batch, generator), len(batch["input"]))

    def _loss(self, batch: Batch, generator: torch.Generator | None) -> Tensor:
        image, target = batch["input"], batch["target"]
        spots = self._blind.draw(image, generator)
        prediction = self.network(self._blind.hide(image, spots, generator))
        weight = spots.to(torch.float32)
        if "cost" in batch:
            weight = weight * batch["cost"]
        return weighted_loss(self.loss, prediction.float(), target.float(), weight, None)
