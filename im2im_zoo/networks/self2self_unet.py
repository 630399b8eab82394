"""Self2SelfUNet: partial convolutions, dropout, and the average of several passes as output.

Masked voxels and dropped features, which are random in the paper's prediction, are drawn once when the network is built, and kept
with its weights. So the output is the same for the same image, in every weights format.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.layers import layers

_SLOPE = 0.1
# Seed of the fixed masks, which are part of the architecture, not of a training.
_SEED = 0
_RANDOM = -1


class Self2SelfUNet(nn.Module):
    """The network of Quan et al. 2020 (doi:10.1109/CVPR42600.2020.00196), in 2D and 3D.

    `forward` is the average of `passes` passes, each of which sees only some voxels. Which ones, and which features it drops,
    repeats along the image every `period` voxels, so that a tile that begins at a multiple of it sees what the whole image
    sees. Every voxel is hidden, and every feature dropped, in the same number of passes.

    Sizes are multiples of `period`; no layer reaches everywhere, so tiles with a halo are exact.

    Args:
        spatial_dims: 2 or 3.
        channels: of the image; the output has as many.
        depth: how often the image is halved; 5 in the paper.
        features: channels of the encoder, 48 in the paper; the decoder has twice as many.
        masked: probability of a voxel to be masked, in each channel independently.
        dropout: probability of a feature of the decoder to be dropped.
        passes: number of averaged passes. The time of a prediction is proportional to it, its memory is not.
        period: voxels after which the mask repeats, a multiple of 2 ** `depth`.
    Raises:
        ComponentError: arguments out of range.
    """

    cite = Citation(
        "Quan et al. 2020: Self2Self With Dropout: Learning Self-Supervised Denoising From Single Image",
        "10.1109/CVPR42600.2020.00196",
    )

    seen: Tensor

    def __init__(
        self,
        spatial_dims: int = 2,
        channels: int = 1,
        depth: int = 5,
        features: int = 48,
        masked: float = 0.3,
        dropout: float = 0.3,
        passes: int = 50,
        period: int = 32,
    ) -> None:
        super().__init__()
        (pool,) = layers(spatial_dims, "MaxPool")
        _check(depth, passes, period, masked, dropout)
        self.masked = masked
        self.passes = passes
        drawn = torch.Generator().manual_seed(_SEED)
        self.register_buffer("seen", _kept(passes, channels, [period] * spatial_dims, masked, drawn))
        widths = [channels, *[features] * (depth + 1)]
        self.encoder = nn.ModuleList(
            _PartialConvolution(spatial_dims, widths[level], widths[level + 1]) for level in range(depth + 1)
        )
        self.bottom = _PartialConvolution(spatial_dims, features, features)
        self.pool = pool(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        blocks = []
        below = features
        for level in reversed(range(depth)):
            outputs = [2 * features] * 2 if level else [4 * features // 3, 2 * features // 3, channels]
            inputs = [below + (features if level else channels), *outputs[:-1]]
            kept = [_kept(passes, n, [period // 2**level] * spatial_dims, dropout, drawn) for n in inputs]
            blocks.append(_Block(spatial_dims, inputs, outputs, dropout, kept, last=level == 0))
            below = outputs[-1]
        self.decoder = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> Tensor:
        """Return the denoised image, (batch, channel, (z,) y, x); sizes are kept."""
        output = self.one_pass(image, self.mask(0, image), 0)
        for number in range(1, self.passes):
            output = output + self.one_pass(image, self.mask(number, image), number)
        return output / self.passes

    def mask(self, number: int, image: Tensor) -> Tensor:
        """Return the mask of a pass, 1 for voxels that it sees, 0 for others: (1, channel, (z,) y, x), of an image's size."""
        return _repeated(self.seen[number], image)

    def one_pass(self, image: Tensor, mask: Tensor, number: int = _RANDOM) -> Tensor:
        """Predict the image from a part of its voxels.

        Args:
            image: (batch, channel, (z,) y, x), sizes multiples of 2 ** `depth`.
            mask: 1 for a voxel that is seen, 0 for one that is not; broadcastable to the image.
            number: of the pass, which selects the dropped features; if negative they are drawn at random.
        """
        visible = image * mask
        feature: Tensor = visible
        share = mask
        skipped = [visible]
        for level, layer in enumerate(self.encoder):
            feature, share = layer(feature, share)
            if level > 0:
                feature, share = self.pool(feature), self.pool(share)
                skipped.append(feature)
        feature, share = self.bottom(feature, share)
        for level, block in enumerate(self.decoder):
            feature = block(torch.cat([self.up(feature), skipped[len(skipped) - 2 - level]], 1), number)
        return feature


class _PartialConvolution(nn.Module):
    """3-convolution of the visible voxels, normalised by their share (Liu et al. 2018, arXiv:1804.07723), and a leaky ReLU."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv, mean, padding = layers(spatial_dims, "Conv", "AvgPool", "ConstantPad")
        self.conv = conv(in_channels, out_channels, 3, padding=1, bias=False)
        # torch's own padding refuses images of two voxels in 3D.
        self.mean = nn.Sequential(padding(1, 0.0), mean(3, stride=1))
        self.bias = nn.Parameter(torch.zeros(out_channels, *[1] * spatial_dims))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features, and a mask of one channel: 1 where any visible voxel contributed."""
        share = self.mean(mask.mean(dim=1, keepdim=True))
        known = (share > 0).to(share.dtype)
        feature = (self.conv(image * mask) / share.clamp(min=1e-6) + self.bias) * known
        return F.leaky_relu(feature, _SLOPE), known


class _Block(nn.Module):
    """Convolutions with dropout in front; a leaky ReLU follows each except the last of the network."""

    def __init__(
        self,
        spatial_dims: int,
        inputs: list[int],
        outputs: list[int],
        rate: float,
        kept: list[Tensor],
        last: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _DroppedConvolution(spatial_dims, n, m, rate, k)
            for n, m, k in zip(inputs, outputs, kept, strict=True)
        )
        self.last = last

    def forward(self, feature: Tensor, number: int) -> Tensor:
        for index, layer in enumerate(self.layers):
            feature = layer(feature, number)
            if not self.last or index < len(self.layers) - 1:
                feature = F.leaky_relu(feature, _SLOPE)
        return feature


class _DroppedConvolution(nn.Module):
    """3-convolution with dropout in front, fixed for each pass or at random."""

    kept: Tensor

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, rate: float, kept: Tensor
    ) -> None:
        super().__init__()
        (conv,) = layers(spatial_dims, "Conv")
        self.conv = conv(in_channels, out_channels, 3, padding=1)
        self.rate = rate
        self.share = float(kept[:, 0].float().mean())
        self.register_buffer("kept", kept)

    def forward(self, feature: Tensor, number: int) -> Tensor:
        if number < 0:
            feature = F.dropout(feature, self.rate, training=True)
        else:
            feature = feature * _repeated(self.kept[number], feature) / self.share
        output: Tensor = self.conv(feature)
        return output


def _kept(passes: int, channels: int, space: list[int], rate: float, generator: torch.Generator) -> Tensor:
    """Draw which elements of a pattern each pass keeps, (pass, channel, (z,) y, x); each is dropped in the same number of passes."""
    order = torch.rand(passes, channels, *space, generator=generator).argsort(dim=0)
    return order >= round(rate * passes)


def _repeated(pattern: Tensor, like: Tensor) -> Tensor:
    """Repeat a pattern (channel, (z,) y, x) to the size of an image: (1, channel, (z,) y, x)."""
    repeats = [1, 1]
    for axis in range(1, pattern.ndim):
        repeats.append(like.shape[axis + 1] // pattern.shape[axis])
    return pattern.to(like.dtype).unsqueeze(0).repeat(repeats)


def _check(depth: int, passes: int, period: int, masked: float, dropout: float) -> None:
    if depth < 1 or period < 2**depth or period % 2**depth:
        raise ComponentError(
            f"Self2SelfUNet: depth is {depth} and period {period}; give how often the image is halved, 1 or more, and a "
            "multiple of 2 ** depth"
        )
    if not 0 < masked < 1 or not 0 <= dropout < 1:
        raise ComponentError(
            f"Self2SelfUNet: masked is {masked} and dropout {dropout}; both are probabilities below 1, and masked is above 0"
        )
    if round(masked * passes) < 1 or round(max(masked, dropout) * passes) >= passes:
        raise ComponentError(
            f"Self2SelfUNet: in {passes} passes, {masked} of them cannot hide, or {dropout} of them drop, each voxel and "
            "leave some; give more passes"
        )
