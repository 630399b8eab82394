"""ProbabilisticUNet: a U-Net with a prior over its possible outputs. The posterior, for training, is in the framework."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.fnet import FNet
from im2im_zoo.networks.layers import layers


class GaussianEncoder(nn.Module):
    """Encoder of an image to axis-aligned Gaussians: the contracting path of a U-Net, and a 1-convolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image.
        depth: how often it is halved.
        features: channels of the first level, doubled at each next one.
        latents: dimensions of the Gaussians.
        local: one Gaussian for each 2 ** `depth` voxels along each axis, else one for the whole image.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, depth: int, features: int, latents: int, local: bool
    ) -> None:
        super().__init__()
        conv, norm = layers(spatial_dims, "Conv", "BatchNorm")
        body: list[nn.Module] = []
        for level in range(depth + 1):
            entering, width = (
                (features * 2 ** (level - 1), features * 2**level) if level else (in_channels, features)
            )
            first = conv(entering, width, 2, stride=2) if level else conv(entering, width, 3, padding=1)
            body += [
                first,
                norm(width),
                nn.ReLU(),
                conv(width, width, 3, padding=1),
                norm(width),
                nn.ReLU(),
            ]
        self.body = nn.Sequential(*body)
        self.last = conv(features * 2**depth, 2 * latents, 1)
        self.space = None if local else tuple(range(2, 2 + spatial_dims))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations, (batch, latents, (z,) y, x) with one voxel for each Gaussian."""
        encoded = self.body(image)
        if self.space is not None:
            encoded = encoded.mean(self.space, keepdim=True)
        mean, log_deviation = self.last(encoded).chunk(2, 1)
        return mean, torch.exp(log_deviation)


class ProbabilisticUNet(nn.Module):
    """The network of Kohl et al. 2018 (arXiv:1806.05034), in 2D and 3D, as it predicts: the mean and the variance of the
    outputs for latents of its prior.

    Three 1-convolutions join the features of the U-Net (an `FNet`) with a latent. The latents are fixed quantiles of the
    prior (a scrambled Sobol sequence), a part of the weights: the output is deterministic.

    The paper has one latent for an image, from global average pooling: the output of a tile then differs from that of the image.
    Here, unless `local` is false, there is one for each 2 ** `depth` voxels along each axis, independent of the others, as
    in the lower levels of the hierarchical one (Kohl et al. 2019, arXiv:1905.13077). A voxel's output depends on the latent
    at its own place only, so means and variances are exact though all places take the same quantiles, and tiles with a halo
    are exact. What is lost is that the variants agree across an image.

    Sizes are multiples of 2 ** `depth`.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the input, and of an output without its variances.
        depth, features: of the U-Net and of the prior.
        latents: dimensions of a latent.
        samples: number of latents.
        local: a latent for each place, or one for the image.
        activation: of the output, of which mean and variance are taken: None where it is intensities, "sigmoid" or "softmax"
            where the loss takes logits.
        seed: of the quantiles.
    Raises:
        ComponentError: another number of dimensions, fewer than two samples, or an unknown activation.
    """

    cite = Citation(
        "Kohl et al. 2018: A Probabilistic U-Net for Segmentation of Ambiguous Images",
        "10.48550/arXiv.1806.05034",
    )

    quantiles: Tensor

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int = 1,
        out_channels: int = 1,
        depth: int = 3,
        features: int = 32,
        latents: int = 6,
        samples: int = 16,
        local: bool = True,
        activation: Literal["sigmoid", "softmax"] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = FNet(spatial_dims, in_channels, features, depth, features)
        if samples < 2:
            raise ComponentError(f"ProbabilisticUNet: samples is {samples}; a variance needs 2 or more")
        if activation not in (None, "sigmoid", "softmax"):
            raise ComponentError(
                f"ProbabilisticUNet: activation is {activation!r}; give sigmoid, softmax or none"
            )
        (conv,) = layers(spatial_dims, "Conv")
        self.in_channels, self.out_channels, self.local = in_channels, out_channels, local
        self.samples, self.activation = samples, activation
        self._encoder = (spatial_dims, depth, features, latents)
        self.prior = self.encoder(in_channels)
        # The first 1-convolution of both, concatenated: that of the features is the same for each latent.
        self.of_features = conv(features, features, 1)
        self.of_latent = conv(latents, features, 1, bias=False)
        self.joined = nn.Sequential(
            nn.ReLU(), conv(features, features, 1), nn.ReLU(), conv(features, out_channels, 1)
        )
        sobol = torch.quasirandom.SobolEngine(latents, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        uniform: Tensor = sobol.draw(samples)
        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6)).float()
        self.register_buffer("quantiles", normal)

    def encoder(self, in_channels: int) -> GaussianEncoder:
        """Build a new encoder like the prior's; the posterior's has more `in_channels`, as it sees the target too."""
        spatial_dims, depth, features, latents = self._encoder
        return GaussianEncoder(spatial_dims, in_channels, depth, features, latents, self.local)

    def forward(self, image: Tensor) -> Tensor:
        """Return means, then variances, (batch, 2 * out_channels, (z,) y, x)."""
        mean, deviation = self.prior(image)
        space = [1] * (image.ndim - 2)
        quantiles = self.quantiles.reshape(self.samples, 1, -1, *space)
        latents = (mean + deviation * quantiles).flatten(0, 1)
        features = self.trunk(image).repeat(self.samples, 1, *space)
        output = self.decode(features, latents)
        if self.activation is not None:
            output = torch.sigmoid(output) if self.activation == "sigmoid" else torch.softmax(output, 1)
        each = output.reshape(self.samples, -1, *output.shape[1:])
        average = each.mean(0)
        return torch.cat([average, ((each - average) ** 2).mean(0)], 1)

    def decode(self, features: Tensor, latents: Tensor) -> Tensor:
        """Return the output without `activation`, (batch, out_channels, (z,) y, x).

        Args:
            features: of the U-Net, (batch, features, (z,) y, x).
            latents: (batch, latents, (z,) y, x) with one voxel for each place, or one for all.
        """
        conditioned = self.of_latent(latents)
        if self.local:
            conditioned = F.interpolate(
                conditioned, scale_factor=float(2 ** self._encoder[1]), mode="nearest"
            )
        output: Tensor = self.joined(self.of_features(features) + conditioned)
        return output
