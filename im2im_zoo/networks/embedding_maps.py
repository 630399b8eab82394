"""EmbeddingMaps: conversion of the output of an EmbedSeg network to offsets and sigmas in voxels, and probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# A network's output s is the sigma `sigma * exp(-5 s)`, so that 1 / (2 sigma²) goes with exp(10 s) as in the papers' code.
STEEPNESS = 5.0


class EmbeddingMaps(nn.Module):
    """A network whose output is converted to maps (Lalit et al. 2021, arXiv:2101.10033; Neven et al. 2019, arXiv:1906.11109).

    The maps are (batch, channel, (z,) y, x), sizes kept. Their channels: offsets along (z,) y, x in voxels, a hyperbolic
    tangent; sigmas along (z,) y, x in voxels, an exponential; the seediness from 0 to 1, a sigmoid.

    Args:
        network: returns an offset along each axis, one sigma or one along each axis, and the seediness.
        voxel_size: along (z,) y, x, in any unit of length.
        grid: the length that an offset cannot exceed along any axis.
        sigma: the length where the network's sigma is 0.
        isotropic: the network returns one sigma for all axes.
    """

    units: Tensor

    def __init__(
        self,
        network: nn.Module,
        voxel_size: Sequence[float],
        grid: float,
        sigma: float,
        isotropic: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.axes = len(voxel_size)
        self.sigmas = 1 if isotropic else self.axes
        scales = [[grid / size for size in voxel_size], [math.log(sigma / size) for size in voxel_size]]
        units = torch.tensor(scales).view(2, 1, -1, *[1] * self.axes)
        self.register_buffer("units", units, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps of (batch, channel, (z,) y, x)."""
        offsets, sigmas, seediness = torch.split(self.network(image), [self.axes, self.sigmas, 1], 1)
        offsets = self.units[0] * torch.tanh(offsets)
        sigmas = torch.exp(self.units[1] - STEEPNESS * sigmas)
        return torch.cat([offsets, sigmas, torch.sigmoid(seediness)], 1)
