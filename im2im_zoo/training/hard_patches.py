"""Tells the data which training patches were hard: the loss of each, after every epoch. Draws none."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.dataset import PLACES
from im2im_zoo.frameworks.base import Framework


class HardPatches(pl.Callback):
    """Collects the losses of an epoch's patches, of all processes, and gives them to the data as the epoch ends.

    What the data has learnt of them is in its state, and so in checkpoints, which are written afterwards.
    """

    def __init__(self, data: ImagePairs) -> None:
        self._data = data
        self._noted: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what an unfinished epoch has left."""
        self._noted.clear()
        if isinstance(pl_module, Framework):
            pl_module.rates_patches = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the losses of a batch, where they are: nothing waits for the device."""
        if isinstance(pl_module, Framework) and pl_module.patch_losses is not None:
            self._noted.append((batch[PLACES], pl_module.patch_losses))
            pl_module.patch_losses = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand them over."""
        hard = self._data.hard_places
        if hard is None or not self._noted:
            return
        places, losses = (torch.cat(column).cpu().numpy() for column in zip(*self._noted, strict=True))
        sums = torch.from_numpy(np.stack(hard.sums(places, losses.astype(np.float64))))
        shared = trainer.strategy.reduce(sums.to(pl_module.device, torch.float32), reduce_op="sum")
        hard.learn(*shared.cpu().numpy())
        self._noted.clear()
