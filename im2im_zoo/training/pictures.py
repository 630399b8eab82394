"""What the network makes of a few held-out patches as training goes on, kept in the run folder. Draws and renders nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from im2im_zoo.core.atomic import atomic_output

_SHOWN = 4
_LOOKED_AT = 64


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Some held-out patches after an epoch, counted from 0.

    Attributes:
        images: "input", "target" and "output", each (patch, channel, (z,) y, x); of z the middle plane alone.
    """

    epoch: int
    images: Mapping[str, NDArray[np.float32]]


class Pictures(pl.Callback):
    """Keeps what the network makes of the same held-out patches after 1, 2, 4, 8, ... epochs, and after the last one.

    Args:
        folder: for the snapshots.
        whole_batches: whether the network is given as many patches as in validation, though few are kept: one that is compiled
            for their number would be compiled anew for another.
    """

    def __init__(self, folder: Path, *, whole_batches: bool = False) -> None:
        self._folder = folder
        self._whole_batches = whole_batches
        self._patches: dict[str, torch.Tensor] | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep a snapshot, if it is time."""
        done = trainer.current_epoch + 1
        if done & (done - 1) == 0 or done == trainer.max_epochs:
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the last epoch's, wherever training ended."""
        last = trainer.current_epoch - 1
        if last >= 0 and not self._file(last).exists():
            self._keep(trainer, pl_module, last)

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int | None = None) -> None:
        # Where the network is in parts on several devices, one process alone cannot run it.
        whole = isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        if not trainer.is_global_zero or trainer.sanity_checking or not whole:
            return
        if trainer.val_dataloaders is None:  # it ended before anything was validated
            return
        if self._patches is None:
            self._patches = _patches(trainer.val_dataloaders, whole_batch=self._whole_batches)
        network = pl_module.exported_network()  # type: ignore[operator]  # every Framework has it
        was_training = network.training
        precision = trainer.precision_plugin  # as in validation
        image = precision.convert_input(self._patches["input"].to(pl_module.device))
        with torch.inference_mode(), precision.forward_context():
            output = network.eval()(image)
        network.train(was_training)
        arrays = {name: _shown(tensor) for name, tensor in (*self._patches.items(), ("output", output))}
        self._folder.mkdir(exist_ok=True)
        file = self._file(trainer.current_epoch if epoch is None else epoch)
        with atomic_output(file) as partial, partial.open("wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    def _file(self, epoch: int) -> Path:
        return self._folder / f"epoch_{epoch:05}.npz"


def read_snapshots(folder: Path) -> tuple[Snapshot, ...]:
    """The snapshots of a run, by epoch; () if there are none."""
    found = []
    for file in sorted(folder.glob("epoch_*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            found.append(Snapshot(int(file.stem.removeprefix("epoch_")), dict(arrays)))
    return tuple(found)


def _shown(tensor: torch.Tensor) -> NDArray[np.float32]:
    """The first patches of a batch, and the middle plane of each."""
    first = tensor[:_SHOWN].float().cpu().numpy()
    middle = first.shape[2] // 2
    return first if first.ndim == 4 else first[:, :, middle : middle + 1]


def _patches(loader: Any, *, whole_batch: bool) -> dict[str, torch.Tensor]:
    """Validation patches: of some that lie evenly among all, those in which the target varies most."""
    dataset = loader.dataset
    count = len(dataset)
    size = min(loader.batch_size if whole_batch else _SHOWN, count)
    some = sorted({int(i) for i in np.linspace(0, count - 1, min(count, max(_LOOKED_AT, size)))})
    patches: Sequence[dict[str, torch.Tensor]] = [dataset[i] for i in some]
    order = sorted(range(len(patches)), key=lambda i: -float(patches[i]["target"].std(correction=0)))[:size]
    return {name: torch.stack([patches[i][name] for i in order]) for name in ("input", "target")}
