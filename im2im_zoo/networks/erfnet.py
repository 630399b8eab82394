"""ERFNet, also with several decoders, in 2D and 3D, written from the paper."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError
from im2im_zoo.networks.layers import layers

_DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)


class ERFNet(nn.Module):
    """The efficient residual factorised network of Romera et al. 2018 (doi:10.1109/TITS.2017.2750080), in 2D and 3D.

    The encoder halves the image three times: two downsamplers, five residual blocks, a downsampler, eight residual
    blocks dilated by 2, 4, 8, 16, 2, 4, 8, 16. The decoder doubles it three times, with two residual blocks after each
    of the first two. In 3D each factorised convolution has three parts, 3x1x1, 1x3x1 and 1x1x3, instead of two.
    Sizes are multiples of 8; it reaches far (hundreds of voxels), but not everywhere.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the input and the output.
        features: channels at a half, a quarter and an eighth of the size; the first more than `in_channels`.
        dropout: probabilities in the encoder's residual blocks at a quarter and at an eighth of the size; the decoder
            has none.
    Raises:
        ComponentError: another number of dimensions, features or probabilities, or too few features.
    """

    cite = Citation(
        "Romera et al. 2018: ERFNet: Efficient Residual Factorized ConvNet for Real-Time Semantic Segmentation",
        "10.1109/TITS.2017.2750080",
    )

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        features: Sequence[int] = (16, 64, 128),
        dropout: Sequence[float] = (0.03, 0.3),
    ) -> None:
        super().__init__()
        self.encoder = _encoder(spatial_dims, in_channels, features, dropout)
        self.decoder = _decoder(spatial_dims, features, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output for (batch, channel, (z,) y, x); sizes are kept."""
        output: Tensor = self.decoder(self.encoder(image))
        return output


class BranchedERFNet(nn.Module):
    """An ERFNet with one encoder and several decoders, whose outputs are concatenated along the channels.

    EmbedSeg (Lalit et al. 2021, arXiv:2101.10033) and the method it builds on (Neven et al. 2019, arXiv:1906.11109)
    have one decoder for offsets and bandwidths and one for seeds: `out_channels: [4, 1]` in 2D, `[6, 1]` in 3D.

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the input.
        out_channels: of each decoder's output; there is one decoder for each number.
        features, dropout: as in `ERFNet`.
    Raises:
        ComponentError: as `ERFNet`, or no decoder.
    """

    cite = ERFNet.cite

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: Sequence[int] = (4, 1),
        features: Sequence[int] = (16, 64, 128),
        dropout: Sequence[float] = (0.03, 0.3),
    ) -> None:
        super().__init__()
        if not out_channels:
            raise ComponentError("BranchedERFNet: out_channels is empty; give the channels of each decoder")
        self.encoder = _encoder(spatial_dims, in_channels, features, dropout)
        self.decoders = nn.ModuleList([_decoder(spatial_dims, features, n) for n in out_channels])

    def forward(self, image: Tensor) -> Tensor:
        """Return the decoders' outputs for (batch, channel, (z,) y, x), in order along the channels; sizes are kept."""
        encoded = self.encoder(image)
        outputs: list[Tensor] = []
        for decoder in self.decoders:
            outputs.append(decoder(encoded))
        return torch.cat(outputs, 1)


class _Downsampler(nn.Module):
    """Halving of an image: a 3-convolution of stride 2 and max-pooling, concatenated."""

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv, norm, pool = layers(spatial_dims, "Conv", "BatchNorm", "MaxPool")
        self.conv = conv(in_channels, out_channels - in_channels, 3, stride=2, padding=1)
        self.pool = pool(2)
        self.norm = norm(out_channels)

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.norm(torch.cat([self.conv(image), self.pool(image)], 1))
        return F.relu(output)


class _Residual(nn.Module):
    """The paper's non-bottleneck-1D: two factorised 3-convolutions, the second one dilated, beside the identity."""

    def __init__(self, spatial_dims: int, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        (dropped,) = layers(spatial_dims, "Dropout")
        self.residual = nn.Sequential(
            *_factorised(spatial_dims, channels, 1),
            nn.ReLU(),
            *_factorised(spatial_dims, channels, dilation),
            dropped(dropout),
        )

    def forward(self, image: Tensor) -> Tensor:
        return F.relu(image + self.residual(image))


def _factorised(spatial_dims: int, channels: int, dilation: int) -> list[nn.Module]:
    """Return a 3-convolution factorised into one along each axis, with ReLU between them and batch norm at the end."""
    conv, norm = layers(spatial_dims, "Conv", "BatchNorm")
    parts: list[nn.Module] = []
    for axis in range(spatial_dims):
        along = [a == axis for a in range(spatial_dims)]
        kernel, padding = tuple(3 if a else 1 for a in along), tuple(dilation if a else 0 for a in along)
        parts += [conv(channels, channels, kernel, padding=padding, dilation=dilation), nn.ReLU()]
    return [*parts[:-1], norm(channels)]


def _encoder(
    spatial_dims: int, in_channels: int, features: Sequence[int], dropout: Sequence[float]
) -> nn.Sequential:
    _check(in_channels, features, dropout)
    half, quarter, eighth = features
    return nn.Sequential(
        _Downsampler(spatial_dims, in_channels, half),
        _Downsampler(spatial_dims, half, quarter),
        *(_Residual(spatial_dims, quarter, 1, dropout[0]) for _ in range(5)),
        _Downsampler(spatial_dims, quarter, eighth),
        *(_Residual(spatial_dims, eighth, dilation, dropout[1]) for dilation in _DILATIONS),
    )


def _decoder(spatial_dims: int, features: Sequence[int], out_channels: int) -> nn.Sequential:
    transposed, norm = layers(spatial_dims, "ConvTranspose", "BatchNorm")

    def doubled(entering: int, leaving: int) -> list[nn.Module]:
        up = transposed(entering, leaving, 3, stride=2, padding=1, output_padding=1)
        return [up, norm(leaving), nn.ReLU(), *(_Residual(spatial_dims, leaving, 1, 0.0) for _ in range(2))]

    half, quarter, eighth = features
    return nn.Sequential(
        *doubled(eighth, quarter), *doubled(quarter, half), transposed(half, out_channels, 2, stride=2)
    )


def _check(in_channels: int, features: Sequence[int], dropout: Sequence[float]) -> None:
    if len(features) != 3 or not in_channels < features[0] < features[1] < features[2]:
        raise ComponentError(
            f"ERFNet: features are {list(features)}; give three numbers that grow, the first more than the "
            f"{in_channels} channels of the input, which the first downsampler passes on"
        )
    if len(dropout) != 2:
        raise ComponentError(f"ERFNet: dropout is {list(dropout)}; give two probabilities")
