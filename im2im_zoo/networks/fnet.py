"""FNet: the U-Net of label-free prediction, in 2D and 3D."""

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.layers import layers, two_convolutions


class FNet(nn.Module):
    """The network of Ounkomol et al. 2018 (doi:10.1038/s41592-018-0111-2), in 2D and 3D.

    At each of `depth` levels two 3-convolutions, halved by a 2-convolution of stride 2 and doubled again by its
    transpose; what was before the halving is concatenated, then two more. Batch normalisation and ReLU follow every
    convolution but the last, a 3-convolution to the output's channels. Sizes are multiples of 2 ** `depth`; no layer
    reaches everywhere, so tiles with a halo are exact.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the input and the output.
        depth: how often the image is halved.
        features: channels of the first level, doubled at each next one (the paper's multiplier).
    Raises:
        ComponentError: another number of dimensions, or a negative depth.
    """

    cite = Citation(
        "Ounkomol et al. 2018: Label-free prediction of three-dimensional fluorescence images from transmitted-light microscopy",
        "10.1038/s41592-018-0111-2",
    )

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        out_channels: int = 1,
        depth: int = 4,
        features: int = 32,
    ) -> None:
        super().__init__()
        (conv,) = layers(spatial_dims, "Conv")
        if depth < 0:
            raise ComponentError(f"FNet: depth is {depth}; give how often the image is halved, 0 or more")
        entering = [in_channels, *(features * 2**level for level in range(depth))]
        body: nn.Module = two_convolutions(spatial_dims, entering[depth], features * 2**depth)
        for level in reversed(range(depth)):
            body = _Level(spatial_dims, entering[level], features * 2**level, body)
        self.body = body
        self.last = conv(features, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output for (batch, channel, (z,) y, x); sizes are kept."""
        output: Tensor = self.last(self.body(image))
        return output


class _Level(nn.Module):
    """One level of the U and all below it; `below` returns twice the channels at half the size."""

    def __init__(self, spatial_dims: int, in_channels: int, features: int, below: nn.Module) -> None:
        super().__init__()
        conv, transposed, norm = layers(spatial_dims, "Conv", "ConvTranspose", "BatchNorm")
        self.before = two_convolutions(spatial_dims, in_channels, features)
        self.down = nn.Sequential(conv(features, features, 2, stride=2), norm(features), nn.ReLU())
        self.below = below
        self.up = nn.Sequential(transposed(2 * features, features, 2, stride=2), norm(features), nn.ReLU())
        self.after = two_convolutions(spatial_dims, 2 * features, features)

    def forward(self, image: Tensor) -> Tensor:
        skipped = self.before(image)
        output: Tensor = self.after(torch.cat([skipped, self.up(self.below(self.down(skipped)))], 1))
        return output
