"""Multi-scale PatchGAN discriminator; the single PatchGAN is MONAI's.

`monai.networks.nets.PatchDiscriminator` is the one of pix2pix: with its default of three layers each output sees 70x70
pixels; it is 2D and 3D, has any of MONAI's norms (batch by default) and returns the features of all its layers. MONAI's
`MultiScalePatchDiscriminator` is not that of pix2pixHD: each discriminator is deeper, instead of the same one with a
smaller image.
"""

from collections.abc import Callable

from torch import Tensor, nn


class MultiScalePatchGAN(nn.Module):
    """Equal discriminators, each of which sees the image at half the size of the previous one (Wang et al. 2018, arXiv:1711.11585).

    Args:
        spatial_dims: 2 or 3.
        in_channels: of the image; in pix2pix, those of input and output together.
        discriminator: builds one of them, called with `spatial_dims` and `in_channels`, e.g.
            `monai.networks.nets.PatchDiscriminator` with `channels` bound. It returns the outputs of all its layers, the
            scores last.
        scales: number of discriminators.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        discriminator: Callable[..., nn.Module],
        scales: int = 3,
    ) -> None:
        super().__init__()
        made = [discriminator(spatial_dims=spatial_dims, in_channels=in_channels) for _ in range(scales)]
        self.discriminators = nn.ModuleList(made)
        pool = nn.AvgPool2d if spatial_dims == 2 else nn.AvgPool3d
        self.pool = pool(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, image: Tensor) -> list[list[Tensor]]:
        """Return for each scale, the largest first, the outputs of all layers for (batch, channel, (z,) y, x)."""
        outputs = []
        for number, discriminator in enumerate(self.discriminators):
            if number:
                image = self.pool(image)
            outputs.append(discriminator(image))
        return outputs
