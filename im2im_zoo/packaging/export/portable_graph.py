"""Pointwise preprocessing as torch modules, to run in front of a network in its graph."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class StainExchange(nn.Module):
    """Macenko's normalisation with fixed stains: I0 10^(-M D) with D = -log10(I / I0), see `processing.custom.macenko`.

    Args:
        exchange: M (3, 3), from the density of the images to that of the reference.
        intensity: I0.
        ndim: number of space axes, 2 or 3.
    """

    def __init__(self, exchange: NDArray[np.float64], intensity: float, ndim: int) -> None:
        super().__init__()
        self.intensity = intensity
        mix = nn.Conv2d(3, 3, 1, bias=False) if ndim == 2 else nn.Conv3d(3, 3, 1, bias=False)
        mix.weight.data = torch.tensor(exchange, dtype=torch.float32).reshape(mix.weight.shape)
        self.mix = mix.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return intensities (batch, 3, (z,) y, x) from 0 to I0, with the stains of the reference."""
        shares = torch.clamp(image / self.intensity, 1 / 255, 1.0)
        result: torch.Tensor = self.intensity * torch.clamp(torch.exp(self.mix(torch.log(shares))), max=1.0)
        return result


class Linear(nn.Module):
    """Linear map gain * image + offset, each one number or one for each channel."""

    gain: torch.Tensor
    offset: torch.Tensor

    def __init__(self, gain: Sequence[float], offset: Sequence[float], ndim: int) -> None:
        super().__init__()
        shape = (1, -1) + (1,) * ndim
        self.register_buffer("gain", torch.tensor(gain, dtype=torch.float32).reshape(shape))
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32).reshape(shape))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the mapped image (batch, channel, (z,) y, x)."""
        return image * self.gain + self.offset


class Limits(nn.Module):
    """Limits of the image's values."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the image, clipped to the limits."""
        return torch.clamp(image, self.low, self.high)
