"""Snapshots of a few held-out patches and the network's output during training, kept in the run folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy

from im2im_zoo.core.atomic import atomic_file
from im2im_zoo.training.grouped_labels import PatchLabeler

_SHOWN = 4
_CANDIDATES = 64


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Held-out patches and the network's output after an epoch.

    Attributes:
        epoch: from 0.
        images: "input", "target" and "output", each (patch, channel, (z,) y, x), and "labels", the objects found in the output, of
            the first patches, if the recipe segments instances; of z only the middle plane.
    """

    epoch: int
    images: Mapping[str, NDArray[Any]]


class SnapshotRecorder(pl.Callback):
    """Recorder of snapshots of the same held-out patches after 1, 2, 4, 8, ... epochs, and after the last one.

    Args:
        folder: for the snapshots.
        whole_batches: whether to run the network on as many patches as in validation, though few are kept, because a compiled
            network is compiled again for another number of patches.
        label: function that finds objects in the output of the patches.
    """

    def __init__(
        self, folder: Path, *, whole_batches: bool = False, label: PatchLabeler | None = None
    ) -> None:
        self._label = label
        self._folder = folder
        self._whole_batches = whole_batches
        self._patches: dict[str, torch.Tensor] | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a snapshot if the number of epochs is a power of two, or the last one."""
        done = trainer.current_epoch + 1
        if done & (done - 1) == 0 or done == trainer.max_epochs:
            self._keep(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the snapshot of the last epoch, wherever training ended."""
        last = trainer.current_epoch - 1
        if last >= 0 and not self._file(last).exists():
            self._keep(trainer, pl_module, last)

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epoch: int | None = None) -> None:
        # One process cannot run a network that is sharded over several devices.
        whole = isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy)
        if not trainer.is_global_zero or trainer.sanity_checking or not whole:
            return
        if trainer.val_dataloaders is None:  # training ended before the first validation
            return
        if self._patches is None:
            self._patches = _choose_patches(trainer.val_dataloaders, whole_batch=self._whole_batches)
        network = pl_module.exported_network()  # type: ignore[operator]  # every Framework has it
        was_training = network.training
        precision = trainer.precision_plugin  # as in validation
        image = precision.convert_input(self._patches["input"].to(pl_module.device))
        with torch.inference_mode(), precision.forward_context():
            output = network.eval()(image)
        network.train(was_training)
        arrays: dict[str, NDArray[Any]] = {
            name: _crop_for_display(tensor) for name, tensor in (*self._patches.items(), ("output", output))
        }
        if self._label is not None:
            labels = self._label(output[:_SHOWN].float().cpu().numpy())
            arrays["labels"] = _middle_plane(labels)
        self._folder.mkdir(exist_ok=True)
        file = self._file(trainer.current_epoch if epoch is None else epoch)
        with atomic_file(file, durable=True) as stream:
            np.savez_compressed(stream, allow_pickle=False, **arrays)

    def _file(self, epoch: int) -> Path:
        return self._folder / f"epoch_{epoch:05}.npz"


def read_snapshots(folder: Path) -> tuple[Snapshot, ...]:
    """Read the snapshots of a run, sorted by epoch; () if there are none."""
    found = []
    for file in sorted(folder.glob("epoch_*.npz")):
        with np.load(file, allow_pickle=False) as arrays:
            found.append(Snapshot(int(file.stem.removeprefix("epoch_")), dict(arrays)))
    return tuple(found)


def _crop_for_display(tensor: torch.Tensor) -> NDArray[np.float32]:
    """Return the first patches of a batch, of z only the middle plane."""
    first: NDArray[np.float32] = _middle_plane(tensor[:_SHOWN].float().cpu().numpy())
    return first


def _middle_plane(patches: NDArray[Any]) -> NDArray[Any]:
    """Return patches (patch, channel, (z,) y, x) with only the middle plane of z."""
    middle = patches.shape[2] // 2
    return patches if patches.ndim == 4 else patches[:, :, middle : middle + 1]


def _choose_patches(loader: Any, *, whole_batch: bool) -> dict[str, torch.Tensor]:
    """Choose validation patches: among some that are evenly spaced, those in which the target varies most."""
    dataset = loader.dataset
    count = len(dataset)
    size = min(loader.batch_size if whole_batch else _SHOWN, count)
    some = sorted({int(i) for i in np.linspace(0, count - 1, min(count, max(_CANDIDATES, size)))})
    patches: Sequence[dict[str, torch.Tensor]] = [dataset[i] for i in some]
    order = sorted(range(len(patches)), key=lambda i: -float(patches[i]["target"].std(correction=0)))[:size]
    return {name: torch.stack([patches[i][name] for i in order]) for name in ("input", "target")}
