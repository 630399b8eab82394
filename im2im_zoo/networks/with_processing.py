"""A network with the pointwise processing around it, for programs that compute these operations differently or not at all."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """Linear map (image - shift) * gain + offset, each with a number for each channel, or one for all.

    A standardization is a shift and a gain: a gain and an offset would lose digits of images with a bright background.
    """

    gain: Tensor
    offset: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        gain: Sequence[float],
        offset: Sequence[float] | None = None,
        shift: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        for name, numbers in (("gain", gain), ("offset", offset), ("shift", shift)):
            value = None if numbers is None else torch.tensor(list(numbers), dtype=torch.float32)
            self.register_buffer(name, value, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return the mapped image (batch, channel, (z,) y, x)."""
        shape = (1, -1, *(1,) * (image.dim() - 2))
        if self.shift is not None:
            image = image - self.shift.reshape(shape)
        image = image * self.gain.reshape(shape)
        return image if self.offset is None else image + self.offset.reshape(shape)


class Limits(nn.Module):
    """Limits of the image's values; None for a side that has none."""

    def __init__(self, low: float | None, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, image: Tensor) -> Tensor:
        """Return the image, clipped to the limits."""
        return torch.clamp(image, self.low, self.high)


class WithProcessing(nn.Module):
    """A network with pointwise operations in front of it and behind it.

    Args:
        network: returns (batch, channel, (z,) y, x).
        before, after: operations in their order, each a name and its arguments:
            {"linear": {"gain": [2.0], "offset": [-1.0]}}, {"linear": {"shift": [100.0], "gain": [0.1]}},
            {"limits": {"low": 0.0, "high": 1.0}}, {"sigmoid": {}}, or {"softmax": {}}, which is over the channels.
    """

    def __init__(
        self,
        network: nn.Module,
        before: Sequence[Mapping[str, Mapping[str, Any]]] = (),
        after: Sequence[Mapping[str, Mapping[str, Any]]] = (),
    ) -> None:
        super().__init__()
        self.before = nn.Sequential(*map(_module, before))
        self.network = network
        self.after = nn.Sequential(*map(_module, after))

    def forward(self, image: Tensor) -> Tensor:
        """Return the processed output (batch, channel, (z,) y, x) for an image of such axes."""
        result: Tensor = self.after(self.network(self.before(image)))
        return result


class WithSoftmax(WithProcessing):
    """A network with a softmax over the channels behind it.

    Args:
        network: returns (batch, channel, (z,) y, x).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__(network, after=[{"softmax": {}}])


def _module(operation: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    ((name, arguments),) = operation.items()
    if name == "softmax":
        return nn.Softmax(dim=1)
    kinds: dict[str, type[nn.Module]] = {"linear": Linear, "limits": Limits, "sigmoid": nn.Sigmoid}
    return kinds[name](**arguments)
