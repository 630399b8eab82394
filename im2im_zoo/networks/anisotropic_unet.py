"""AnisotropicUNet: a 3D U-Net that pools along y and x only."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from im2im_zoo.core.citation import Citation
from im2im_zoo.core.errors import ComponentError


class AnisotropicUNet(nn.Module):
    """The 3D U-Net of Çiçek et al. 2016 (arXiv:1606.06650), pooled along y and x only, as in the Allen Segmenter.

    Stacks have few slices, far apart: pooled along z they would be gone after some levels (Chen et al. 2018,
    doi:10.1101/491035, whose `unet_xy` this follows). At each level two convolutions of 3 x 3 voxels in the plane and
    of `z_kernels` along z, the first to half the level's channels on the way down (no bottleneck before pooling).
    Max-pooling and transposed convolutions are 1 x 2 x 2; what was before the pooling is concatenated. Batch
    normalisation and ReLU follow each of the convolutions; the last layer is a 1-convolution. Unlike theirs, sizes are
    kept (zero padding), and there are no auxiliary outputs.

    Sizes are multiples of 2 ** (levels - 1) along y and x, and any along z.

    Args:
        in_channels, out_channels: of the input and the output.
        features: channels of each level, the finest first.
        z_kernels: voxels of each level's convolutions along z, odd: 1 where z is so coarse that neighbouring slices
            are hardly related. Default: 3 at every level.
    Raises:
        ComponentError: an even kernel, other numbers of kernels than levels, or fewer than two levels or channels.
    """

    cite = Citation(
        "Çiçek et al. 2016: 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation",
        "10.48550/arXiv.1606.06650",
    )

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        features: Sequence[int] = (64, 128, 256, 512),
        z_kernels: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        kernels = [3] * len(features) if z_kernels is None else list(z_kernels)
        if len(features) < 2 or min(features) < 2:
            raise ComponentError(
                f"AnisotropicUNet: features are {list(features)}; give two or more levels of two or more channels"
            )
        if len(kernels) != len(features) or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ComponentError(
                f"AnisotropicUNet: z_kernels are {kernels}; give one odd number for each of the {len(features)} levels"
            )
        body: nn.Module = _two_convolutions(features[-2], features[-1] // 2, features[-1], kernels[-1])
        for level in reversed(range(len(features) - 1)):
            entering = features[level - 1] if level else in_channels
            body = _Level(entering, features[level], features[level + 1], kernels[level], body)
        self.body = body
        self.last = nn.Conv3d(features[0], out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output for (batch, channel, z, y, x); sizes are kept."""
        output: Tensor = self.last(self.body(image))
        return output


class _Level(nn.Module):
    """One level of the U and all below it, which returns `features_below` channels at half the size in the plane."""

    def __init__(
        self, in_channels: int, features: int, features_below: int, z_kernel: int, below: nn.Module
    ) -> None:
        super().__init__()
        self.before = _two_convolutions(in_channels, features // 2, features, z_kernel)
        self.down = nn.MaxPool3d((1, 2, 2))
        self.below = below
        self.up = nn.ConvTranspose3d(features_below, features_below, (1, 2, 2), stride=(1, 2, 2))
        self.after = _two_convolutions(features + features_below, features, features, z_kernel)

    def forward(self, image: Tensor) -> Tensor:
        skipped = self.before(image)
        output: Tensor = self.after(torch.cat([skipped, self.up(self.below(self.down(skipped)))], 1))
        return output


def _two_convolutions(in_channels: int, between: int, out_channels: int, z_kernel: int) -> nn.Sequential:
    kernel, padding = (z_kernel, 3, 3), (z_kernel // 2, 1, 1)
    return nn.Sequential(
        nn.Conv3d(in_channels, between, kernel, padding=padding),
        nn.BatchNorm3d(between),
        nn.ReLU(),
        nn.Conv3d(between, out_channels, kernel, padding=padding),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(),
    )
