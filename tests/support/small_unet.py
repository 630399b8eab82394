"""The U-Net of the packages for tests; also shipped in them as the source of their architecture."""

import torch
from torch import nn


class SmallUNet(nn.Module):
    """Pools `levels` times by two, along the axes where `pool` is true; zero-padded convolutions; sizes are kept."""

    def __init__(
        self, ndim: int = 2, channels: int = 1, out_channels: int = 1, levels: int = 2, width: int = 4
    ):
        super().__init__()
        conv = nn.Conv2d if ndim == 2 else nn.Conv3d
        pool = nn.MaxPool2d if ndim == 2 else nn.MaxPool3d
        # Anisotropic, as 3D images are: z is pooled once only.
        kernels = [(2,) * ndim if ndim == 2 or i == 0 else (1, 2, 2) for i in range(levels)]
        self.first = conv(channels, width, 3, padding=1)
        self.down = nn.ModuleList([conv(width, width, 3, padding=1) for _ in range(levels)])
        self.pool = nn.ModuleList([pool(k) for k in kernels])
        self.up = nn.ModuleList([nn.Upsample(scale_factor=tuple(float(n) for n in k)) for k in kernels[::-1]])
        self.join = nn.ModuleList([conv(2 * width, width, 3, padding=1) for _ in range(levels)])
        self.last = conv(width, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        skips = [x]
        for down, pool in zip(self.down, self.pool):  # noqa: B905 TorchScript
            x = torch.tanh(down(pool(x)))
            skips.append(x)
        i = len(skips) - 1
        for up, join in zip(self.up, self.join):  # noqa: B905 TorchScript
            i = i - 1
            x = torch.tanh(join(torch.cat([up(x), skips[i]], 1)))
        return self.last(x)
