"""Layers of torch in 2 or 3 dimensions, by their names."""

from typing import Any

from torch import nn

from im2im_zoo.core.errors import ComponentError


def layers(spatial_dims: int, *names: str) -> tuple[Any, ...]:
    """Return layers of torch for a number of dimensions: of 3 and "Conv", `nn.Conv3d`.

    Raises:
        ComponentError: neither 2 nor 3 dimensions.
    """
    if spatial_dims not in (2, 3):
        raise ComponentError(f"network: spatial_dims is {spatial_dims}; give 2 (y, x) or 3 (z, y, x)")
    return tuple(getattr(nn, f"{name}{spatial_dims}d") for name in names)


def two_convolutions(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3-convolutions that keep the size, each followed by batch normalisation and ReLU."""
    conv, norm = layers(spatial_dims, "Conv", "BatchNorm")
    return nn.Sequential(
        conv(in_channels, out_channels, 3, padding=1),
        norm(out_channels),
        nn.ReLU(),
        conv(out_channels, out_channels, 3, padding=1),
        norm(out_channels),
        nn.ReLU(),
    )
