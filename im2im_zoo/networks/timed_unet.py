"""TimedUNet: a small time-conditioned U-Net for denoising diffusion, whose norms see one voxel only."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.layers import layers

_LONGEST = 10000.0  # longest period of the time encoding, in times


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each voxel, as in ConvNeXt
    (Liu et al. 2022, arXiv:2201.03545).

    The U-Nets of diffusion use group norm instead, whose statistics are of the whole image: the output of a tile would then
    differ from that of the image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, image: Tensor) -> Tensor:
        """Return the normalised (batch, channel, (z,) y, x), of the same shape."""
        last = image.ndim - 1
        normal = F.layer_norm(image.permute(0, *range(2, last + 1), 1), (self.channels,))
        return normal.permute(0, last, *range(1, last))


class TimedUNet(nn.Module):
    """The U-Net of denoising diffusion (Ho et al. 2020, arXiv:2006.11239; Dhariwal and Nichol 2021, arXiv:2105.05233),
    small, in 2D and 3D.

    At each level a residual block of two 3-convolutions on the way down and one on the way up; between levels
    2-convolutions of stride 2 and their transposes. The time scales and shifts the features within each block. Unlike
    theirs it has no attention, and `ChannelNorm` in the place of group norm: no layer reaches everywhere, so tiles with a
    halo are exact. Sizes are multiples of 2 ** (levels - 1).

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the input and the output.
        features: channels of each level, the finest first.
    Raises:
        ComponentError: another number of dimensions, or no level.
    """

    cite = Citation("Ho et al. 2020: Denoising Diffusion Probabilistic Models", "10.48550/arXiv.2006.11239")

    periods: Tensor

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, features: Sequence[int] = (32, 64, 128)
    ) -> None:
        super().__init__()
        conv, transposed = layers(spatial_dims, "Conv", "ConvTranspose")
        if not features or min(features) < 2:
            raise ComponentError(
                f"TimedUNet: features are {list(features)}; give one or more levels of two or more"
            )
        code, encoded = 2 * features[0], 4 * features[0]
        waves = torch.exp(-math.log(_LONGEST) * torch.arange(features[0]) / features[0])
        self.register_buffer("periods", waves, persistent=False)
        self.tell = nn.Sequential(nn.Linear(code, encoded), nn.SiLU(), nn.Linear(encoded, encoded), nn.SiLU())
        self.first = conv(in_channels, features[0], 3, padding=1)
        self.before = nn.ModuleList(_Block(spatial_dims, f, f, encoded) for f in features)
        self.down = nn.ModuleList(
            conv(finer, coarser, 2, stride=2) for finer, coarser in itertools.pairwise(features)
        )
        self.up = nn.ModuleList(
            transposed(coarser, finer, 2, stride=2) for finer, coarser in itertools.pairwise(features)
        )
        self.after = nn.ModuleList(_Block(spatial_dims, 2 * f, f, encoded) for f in features[:-1])
        self.last = nn.Sequential(
            ChannelNorm(features[0]),
            nn.SiLU(),
            _zero_initialised(conv(features[0], out_channels, 3, padding=1)),
        )

    def forward(self, image: Tensor, times: Tensor) -> Tensor:
        """Return the output for (batch, channel, (z,) y, x) and the times (batch,); sizes are kept."""
        angles = times.float()[:, None] * self.periods
        encoded = self.tell(torch.cat([torch.cos(angles), torch.sin(angles)], 1))
        current, skipped = self.first(image), []
        for block, down in zip(self.before, self.down, strict=False):
            skipped.append(block(current, encoded))
            current = down(skipped[-1])
        current = self.before[-1](current, encoded)
        for block, up in zip(reversed(self.after), reversed(self.up), strict=True):
            current = block(torch.cat([skipped.pop(), up(current)], 1), encoded)
        output: Tensor = self.last(current)
        return output


class _Block(nn.Module):
    """Residual block whose second norm is scaled and shifted by the encoded time; initially the identity."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, encoded: int) -> None:
        super().__init__()
        (conv,) = layers(spatial_dims, "Conv")
        self.enter = nn.Sequential(
            ChannelNorm(in_channels), nn.SiLU(), conv(in_channels, out_channels, 3, padding=1)
        )
        self.norm = ChannelNorm(out_channels)
        self.leave = nn.Sequential(
            nn.SiLU(), _zero_initialised(conv(out_channels, out_channels, 3, padding=1))
        )
        self.tell = nn.Linear(encoded, 2 * out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else conv(in_channels, out_channels, 1)
        self.shape = (-1, out_channels) + (1,) * spatial_dims

    def forward(self, image: Tensor, encoded: Tensor) -> Tensor:
        scale, shift = (part.reshape(self.shape) for part in self.tell(encoded).chunk(2, 1))
        within = self.norm(self.enter(image)) * (1 + scale) + shift
        output: Tensor = self.skip(image) + self.leave(within)
        return output


def _zero_initialised(convolution: Any) -> Any:
    """Return the convolution with weights and biases of 0."""
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution
