"""A network and the softmax behind it as one, for programs that have no softmax of their own. Trains nothing."""

import torch
from torch import Tensor, nn


class WithSoftmax(nn.Module):
    """A network whose output is the softmax of another's, over its channels.

    Args:
        network: gives (batch, channel, (z,) y, x).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Probabilities (batch, channel, (z,) y, x), which add up to 1 in each voxel."""
        return torch.softmax(self.network(image), dim=1)
