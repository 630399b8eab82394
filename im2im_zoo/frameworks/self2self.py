"""Self2Self: denoising learned from noisy images only, by predicting masked voxels from the others."""

from typing import Unpack

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.frameworks.base import Batch, Framework, OptimizerOptions
from im2im_zoo.losses.weighted import weighted_mean
from im2im_zoo.networks.self2self_unet import Self2SelfUNet


class Self2Self(Framework):
    """A network learns to predict masked voxels (Quan et al. 2020, doi:10.1109/CVPR42600.2020.00196).

    The mask and the dropped features are drawn at random for each batch. The loss is the mean squared error of masked
    voxels, weighted by the batch's `cost`. The package averages several such predictions, whose masks are fixed: see
    `Self2SelfUNet`.

    The paper trains one network on one image, for that image. The same happens here if the images to train on are those
    to denoise; a package can denoise similar images too.

    Args:
        network: a `Self2SelfUNet`, which sets the fraction of masked voxels.
        options: see `OptimizerOptions`.

    Raises:
        ComponentError: the network is not a `Self2SelfUNet`.
    """

    cite = Citation(
        "Quan et al. 2020: Self2Self With Dropout: Learning Self-Supervised Denoising From Single Image",
        "10.1109/CVPR42600.2020.00196",
    )
    uses_weight_maps = True
    uses_pairs = False
    uses_targets = False
    network: Self2SelfUNet

    def __init__(
        self,
        network: nn.Module,
        **options: Unpack[OptimizerOptions],
    ) -> None:
        super().__init__(**options)
        if not isinstance(network, Self2SelfUNet):
            raise ComponentError(
                f"network: Self2Self cannot train {type(network).__name__}, which takes no mask and averages no passes; "
                "use im2im_zoo.networks.self2self_unet.Self2SelfUNet"
            )
        self.network = network

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss at masked voxels, drawn again for each batch and channel."""
        image = batch["input"]
        mask = (torch.rand(image.shape, device=image.device) >= self.network.masked).to(image.dtype)
        loss = self.finite(_loss(self.network.one_pass(image, mask), batch, mask))
        self.log_training(loss, len(image))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss of one of the passes that the package averages; each batch has the same one in each epoch."""
        image, number = batch["input"], batch_idx % self.network.passes
        mask = self.network.mask(number, image)
        self.log_validation(_loss(self.network.one_pass(image, mask, number), batch, mask), len(image))


def _loss(prediction: Tensor, batch: Batch, mask: Tensor) -> Tensor:
    """Return the mean squared error of masked voxels."""
    target = batch["target"]
    weight = (1 - mask).expand_as(target)
    if "cost" in batch:
        weight = weight * batch["cost"]
        prediction, target = (values.masked_fill(batch["cost"] == 0, 0) for values in (prediction, target))
    return weighted_mean((prediction.float() - target.float()) ** 2, weight)
