"""A network followed by a softmax, for programs that have no softmax of their own."""

import torch
from torch import Tensor, nn


class WithSoftmax(nn.Module):
    """A network whose output is the softmax of another's, over its channels.

    Args:
        network: returns (batch, channel, (z,) y, x).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Return probabilities (batch, channel, (z,) y, x), which add up to 1 in each voxel."""
        return torch.softmax(self.network(image), dim=1)
