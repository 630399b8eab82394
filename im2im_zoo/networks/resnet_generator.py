"""ResnetGenerator: the residual generator of CycleGAN and pix2pixHD, in 2D and 3D."""

from typing import Literal, get_args

from torch import Tensor, nn

from im2im_zoo.core.citation import Citation

Norm = Literal["batch", "instance", "none"]
Padding = Literal["zeros", "reflect"]
Upsampling = Literal["transposed", "nearest"]
Activation = Literal["tanh", "sigmoid"]


class ResnetGenerator(nn.Module):
    """Two halvings, residual blocks, two doublings (Johnson et al. 2016, arXiv:1603.08155; Zhu et al. 2017, arXiv:1703.10593).

    In their notation c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1. It takes sizes that are multiples of 4 and keeps
    them. With batch norm a tile gives what the whole gives beyond the receptive field; with instance norm, which the
    papers have, each tile is normalised by itself. The papers end in a tanh, for images in -1 to 1; here the
    output is linear unless `activation` says otherwise.

    Args:
        spatial_dims: 2 or 3.
        in_channels, out_channels: of the images.
        width: channels of the first convolution; twice and four times as many after each halving.
        blocks: residual blocks; the papers have 6 for images of 128 x 128 and 9 for larger ones.
        norm: behind each convolution but the last.
        padding: what is beyond the border; the papers have reflection. Doublings are padded by zeros.
        upsampling: a transposed convolution, as in the papers, or a convolution of repeated voxels, which leaves no
            checkerboard (Odena et al. 2016, doi:10.23915/distill.00003). Both shift with the input.
        activation: put behind the last convolution; by name, a package can say how the network is built, and holds
            pytorch_state_dict weights too.

    Raises:
        ValueError: an unknown norm, padding, upsampling or activation.
    """

    cite = Citation(
        "Johnson et al. 2016: Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
        "10.48550/arXiv.1603.08155",
    )

    def __init__(
        self,
        spatial_dims: Literal[2, 3] = 2,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        blocks: int = 9,
        norm: Norm = "batch",
        padding: Padding = "zeros",
        upsampling: Upsampling = "transposed",
        activation: Activation | nn.Module | None = None,
    ) -> None:
        super().__init__()
        for value, kinds in ((norm, Norm), (padding, Padding), (upsampling, Upsampling)):
            if value not in get_args(kinds):
                raise ValueError(f"{value!r} is none of {', '.join(get_args(kinds))}")
        layers = _Layers(spatial_dims, norm, padding)
        self.layers = nn.Sequential(
            *layers.convolution(in_channels, width, 7),
            *layers.convolution(width, 2 * width, 3, stride=2),
            *layers.convolution(2 * width, 4 * width, 3, stride=2),
            *(_Residual(layers, 4 * width) for _ in range(blocks)),
            *layers.doubling(4 * width, 2 * width, upsampling),
            *layers.doubling(2 * width, width, upsampling),
            layers.conv(width, out_channels, 7, padding=3, padding_mode=padding),
            *_activations(activation),
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights: normal with a standard deviation of 0.02, as in the papers."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.normal_(module.weight, 0.0, 0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                module.reset_running_stats()
                nn.init.normal_(module.weight, 1.0, 0.02)
                nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Map (batch, in_channels, (z,) y, x), sizes multiples of 4, to (batch, out_channels, (z,) y, x)."""
        output: Tensor = self.layers(image)
        return output


def _activations(activation: Activation | nn.Module | None) -> list[nn.Module]:
    if activation is None or isinstance(activation, nn.Module):
        return [] if activation is None else [activation]
    if activation not in get_args(Activation):
        raise ValueError(f"{activation!r} is none of {', '.join(get_args(Activation))}")
    return [nn.Tanh() if activation == "tanh" else nn.Sigmoid()]


class _Layers:
    """Factory of layers of one dimensionality, norm and padding."""

    def __init__(self, spatial_dims: int, norm: Norm, padding: Padding) -> None:
        two = spatial_dims == 2
        self.conv: type[nn.Conv2d | nn.Conv3d] = nn.Conv2d if two else nn.Conv3d
        self._transposed = nn.ConvTranspose2d if two else nn.ConvTranspose3d
        norms: dict[Norm, type[nn.Module] | None] = {
            "batch": nn.BatchNorm2d if two else nn.BatchNorm3d,
            "instance": nn.InstanceNorm2d if two else nn.InstanceNorm3d,
            "none": None,
        }
        self._norm = norms[norm]
        self._padding = padding
        self._bias = norm != "batch"  # batch norm has a shift of its own

    def convolution(self, channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        return [*self.linear(channels, out, kernel, stride), nn.ReLU()]

    def linear(self, channels: int, out: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        """Return a convolution and its norm, without a rectifier."""
        conv = self.conv(
            channels, out, kernel, stride, kernel // 2, padding_mode=self._padding, bias=self._bias
        )
        return [conv, *self._normed(out)]

    def doubling(self, channels: int, out: int, upsampling: Upsampling) -> list[nn.Module]:
        if upsampling == "nearest":
            return [nn.Upsample(scale_factor=2.0), *self.convolution(channels, out, 3)]
        conv = self._transposed(channels, out, 3, 2, 1, output_padding=1, bias=self._bias)
        return [conv, *self._normed(out), nn.ReLU()]

    def _normed(self, channels: int) -> list[nn.Module]:
        return [] if self._norm is None else [self._norm(channels)]


class _Residual(nn.Module):
    def __init__(self, layers: _Layers, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *layers.convolution(channels, channels, 3), *layers.linear(channels, channels, 3)
        )

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.layers(image)
        return image + output
