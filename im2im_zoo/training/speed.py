"""Faster training with the same result: the memory format of the networks, and torch.compile.

Neither changes the names in a checkpoint, so a run can be exported and resumed like any other.
"""

import os
import shutil

import pytorch_lightning as pl
import torch
from torch import nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Network


class NetworkSpeedup(pl.Callback):
    """Conversion of a framework's networks to channels-last or compiled form before training.

    Args:
        channels_last: whether to use the channels-last memory format; None: for two-dimensional networks on a GPU.
        compiled: whether to compile the networks.
    """

    def __init__(self, channels_last: bool | None, compiled: bool) -> None:
        self._channels_last = channels_last
        self._compiled = compiled

    @classmethod
    def from_recipe(cls, network: Network) -> "NetworkSpeedup":
        """Make the callback of a recipe's `network` section.

        Raises:
            TrainingError: the network is to be compiled, and there is no compiler.
        """
        if network.compile:
            check_compiler()
        return cls(network.channels_last, network.compile)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Change the networks in place, before checkpoints are loaded."""
        on_gpu = trainer.strategy.root_device.type == "cuda"
        for network in pl_module.children():
            if not any(True for _ in network.parameters()):
                continue
            if self._channels_last if self._channels_last is not None else on_gpu and _is_2d(network):
                # Convolutions pass on the memory format of their weights.
                last = torch.channels_last if _is_2d(network) else torch.channels_last_3d
                network.to(memory_format=last)  # type: ignore[call-overload]  # torch has it, its types do not
            if self._compiled:
                network.compile(dynamic=False)


def check_compiler() -> None:
    """Refuse torch.compile where it would fail at the first batch.

    Raises:
        TrainingError: there is no C++ compiler.
    """
    known = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    if not any(name and shutil.which(name) for name in known):
        raise TrainingError(
            "network.compile: torch.compile needs a C++ compiler, but none is found: install g++ or clang++, set "
            "the environment variable CXX to another, or set network.compile to false"
        )


def is_compiler_error(error: BaseException) -> bool:
    """Whether an error comes from torch.compile or from its compiled code."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or (
        isinstance(error, AssertionError) and "expected size" in str(error)
    )


def _is_2d(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in network.modules())
