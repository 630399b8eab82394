"""Pointwise preprocessing as torch modules, to run in front of a network in its graph."""

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
