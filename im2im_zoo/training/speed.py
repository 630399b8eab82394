"""What makes a training faster without changing what it learns: the memory format of the networks, and torch.compile.

Neither changes a name in a checkpoint, so that a run may be exported and resumed as any other.
"""

import os
import shutil

import pytorch_lightning as pl
import torch
from torch import nn

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Network


class Faster(pl.Callback):
    """Brings all networks of a framework into the form that a recipe's `network` section asks for, before it trains."""

    def __init__(self, channels_last: bool | None, compiled: bool) -> None:
        self._channels_last = channels_last
        self._compiled = compiled

    @classmethod
    def of(cls, network: Network) -> "Faster":
        """As a recipe says.

        Raises:
            TrainingError: it is to be compiled, and there is no compiler.
        """
        if network.compile:
            check_compiler()
        return cls(network.channels_last, network.compile)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Change the networks in place; checkpoints are loaded after that."""
        on_gpu = trainer.strategy.root_device.type == "cuda"
        for network in pl_module.children():
            if not any(True for _ in network.parameters()):
                continue
            if self._channels_last if self._channels_last is not None else on_gpu and _is_2d(network):
                # Each takes what it is made for, and convolutions hand on the format of their weights.
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
            "network.compile: torch.compile needs a C++ compiler, and there is none: install g++ or clang++, name another in "
            "the environment variable CXX, or set network.compile to false"
        )


def of_compiler(error: BaseException) -> bool:
    """Whether torch.compile failed, or what it made of a network: its own errors, and what its code asserts of its tensors."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or (
        isinstance(error, AssertionError) and "expected size" in str(error)
    )


def _is_2d(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv2d | nn.ConvTranspose2d) for module in network.modules())
