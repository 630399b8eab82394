"""BlurPoolUNet: the U-Net of N2V2, with anti-aliased pooling and no skip connection at full size."""

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.layers import layers, two_convolutions


class BlurPoolUNet(nn.Module):
    """The network of Höck et al. 2022 (arXiv:2211.08512), in 2D and 3D, against the chequerboards of Noise2Void.

    At each of `depth` levels two 3-convolutions, halved by a maximum that is blurred before it is sampled (Zhang 2019,
    arXiv:1904.11486) and doubled again by repeating voxels; then two more, after concatenation with what was before the
    halving, but not at full size. Batch normalisation and ReLU follow every convolution but the last, of one voxel.
    Sizes are multiples of 2 ** `depth`; no layer reaches everywhere, so tiles with a halo are exact.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the input and the output.
        depth: how often the image is halved.
        features: channels of the first level, doubled at each next one.
        first_skip: whether there is a skip connection at full size too, which passes single voxels on.
    Raises:
        ComponentError: another number of dimensions, or no level.
    """

    cite = Citation(
        "Höck et al. 2022: N2V2 - Fixing Noise2Void Checkerboard Artifacts with Modified Sampling Strategies and a Tweaked Network Architecture",
        "10.48550/arXiv.2211.08512",
    )

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        depth: int = 2,
        features: int = 32,
        first_skip: bool = False,
    ) -> None:
        super().__init__()
        (conv,) = layers(spatial_dims, "Conv")
        if depth < 1:
            raise ComponentError(
                f"BlurPoolUNet: depth is {depth}; give how often the image is halved, 1 or more"
            )
        entering = [in_channels, *(features * 2**level for level in range(depth))]
        body: nn.Module = two_convolutions(spatial_dims, entering[depth], features * 2**depth)
        for level in reversed(range(depth)):
            skips = level > 0 or first_skip
            body = _Level(spatial_dims, entering[level], features * 2**level, body, skips)
        self.body = body
        self.last = conv(features, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output for (batch, channel, (z,) y, x); sizes are kept."""
        output: Tensor = self.last(self.body(image))
        return output


class _Level(nn.Module):
    """One level of the U and all below it; `below` returns twice the channels at half the size."""

    def __init__(
        self, spatial_dims: int, in_channels: int, features: int, below: nn.Module, skips: bool
    ) -> None:
        super().__init__()
        self.before = two_convolutions(spatial_dims, in_channels, features)
        self.down = _blurred_maximum(spatial_dims)
        self.below = below
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.skips = skips
        self.after = two_convolutions(spatial_dims, (3 if skips else 2) * features, features)

    def forward(self, image: Tensor) -> Tensor:
        skipped = self.before(image)
        raised = self.up(self.below(self.down(skipped)))
        output: Tensor = self.after(torch.cat([skipped, raised], 1) if self.skips else raised)
        return output


def _blurred_maximum(spatial_dims: int) -> nn.Sequential:
    """Build max-pooling of 2 voxels along each axis, blurred by 1 2 1 before it is sampled at every second voxel.

    Two means of two voxels in a row are 1 2 1. An even size is halved.
    """
    padding, maximum, mean = layers(spatial_dims, "ReplicationPad", "MaxPool", "AvgPool")
    return nn.Sequential(padding([1, 2] * spatial_dims), maximum(2, stride=1), mean(2, stride=1), mean(2))
