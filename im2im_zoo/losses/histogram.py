"""Discriminator of intensity histograms, independent of position: the histogram matching of Ihle et al. 2019.

"Unsupervised data to content transformation with histogram-matching cycle-consistent generative adversarial networks",
Nature Machine Intelligence 1, 461-470 (2019). A histogram has no gradient. Here, as in the authors'
code, the sorted intensities are used instead, which hold the same information and have one.
"""

import torch
from torch import Tensor, nn


def sorted_intensities(images: Tensor, groups: int) -> Tensor:
    """Return the sorted intensities of a batch as means of groups of equal size: a differentiable quantile function.

    Args:
        images: (batch, channel, (z,) y, x).
        groups: their number; sizes differ by one where the voxels do not divide.

    Returns:
        (channel, groups), descending.

    Raises:
        ValueError: fewer voxels than groups.
    """
    voxels = images.float().transpose(0, 1).flatten(1).sort(1, descending=True).values
    count = voxels.shape[1]
    if count < groups:
        raise ValueError(
            f"a batch of {count} voxels a channel cannot be sorted into {groups} groups; make data.patch_size larger"
        )
    sizes = [(i + 1) * count // groups - i * count // groups for i in range(groups)]
    return torch.stack([part.mean(1) for part in voxels.split_with_sizes(sizes, 1)], 1)


class HistogramDiscriminator(nn.Module):
    """Discriminator of real and generated batches by their sorted intensities: three dense layers.

    A batch has one histogram. As in the paper's code, normal noise is added to it in training; unlike there it does not
    fade over the epochs.

    Args:
        channels: of the images.
        groups: number of sorted intensities; the paper's code takes the side of its images, 256.
        width: of the two hidden layers.
        noise: standard deviation of the noise, in units of the preprocessed intensities.
    """

    def __init__(self, channels: int, groups: int = 256, width: int = 64, noise: float = 0.1) -> None:
        super().__init__()
        self.groups = groups
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(channels * groups, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the score, (1, 1), of images (batch, channel, (z,) y, x)."""
        intensities = sorted_intensities(images, self.groups).flatten()[None]
        if self.training and self.noise:
            intensities = intensities + self.noise * torch.randn_like(intensities)
        score: Tensor = self.layers(intensities)
        return score
