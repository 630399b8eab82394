"""Lightning callbacks of every training: metrics as CSV, exact resume, progress and patch losses."""

import csv
import io
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from im2im_zoo.core.atomic import atomic_file, write_text
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.dataset import PATCH_POSITIONS
from im2im_zoo.frameworks.base import Framework

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Progress of training.

    Attributes:
        batches: done so far, over all epochs.
        total_batches: of all epochs; None if it is not known.
        epoch: the current one, from 0.
        epochs: how many there are; None if it is not known.
        metrics: the latest ones.
        is_end_of_epoch: whether the current epoch is complete.
    """

    batches: int
    total_batches: int | None
    epoch: int
    epochs: int | None
    metrics: Mapping[str, float]
    is_end_of_epoch: bool = False


class MetricsTable(pl.Callback):
    """CSV file of metrics with one row an epoch; a resumed run continues at its checkpoint.

    Validation metrics are blank in epochs without validation (`trainer.check_val_every_n_epoch`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._started = 0.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs before the checkpoint."""
        if self._path.is_file():
            with self._path.open(newline="", encoding="utf-8") as file:
                self._rows = [
                    row for row in csv.DictReader(file) if int(row["epoch"]) < trainer.current_epoch
                ]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.perf_counter()
        self._validated = False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record that this epoch has validation metrics."""
        self._validated = True

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the row of this epoch."""
        if not trainer.is_global_zero:
            return
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        row: dict[str, Any] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        logged = latest_metrics(trainer)
        row |= {k: v for k, v in logged.items() if self._validated or not k.startswith("val_")}
        row["learning_rate"] = rates[0] if rates else ""
        row["seconds"] = round(time.perf_counter() - self._started, 3)
        self._rows.append(row)
        columns = list(dict.fromkeys(key for r in self._rows for key in r))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(self._path, table.getvalue(), durable=True)


class EpochSeed(pl.Callback):
    """Seeding of all random generators at the start of each epoch, so that a resumed run equals an uninterrupted one."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed by (seed, epoch, rank), so that each process of a distributed training draws its own numbers."""
        state = np.random.SeedSequence([self._seed, trainer.current_epoch, trainer.global_rank])
        seed = int(state.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # some transforms draw from the global generator
        torch.manual_seed(seed)


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that replace older ones in one step, and are whole after a power cut.

    Lightning 2.6 writes them to the folder of temporary files and moves them, which copies them if that is another disk.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint, and its folder."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Into memory first, as Lightning does: on a full disk torch 2.13 reports a position in the file instead.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with atomic_file(file, durable=True) as opened:
            opened.write(content.getbuffer())


class PlateauSteps(pl.Callback):
    """Step of plateau schedules in a resumed run, as an uninterrupted one makes it after the checkpoint of an epoch."""

    def __init__(self) -> None:
        self._watched: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the metrics that the schedules watch, for the checkpoint."""
        names = {str(c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau}
        known = trainer.callback_metrics
        self._watched = {name: float(known[name]) for name in sorted(names & known.keys())}

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics that the schedules watch."""
        return {"watched": self._watched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the metrics from the checkpoint of a resumed run."""
        self._before = state_dict["watched"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step the plateau schedules with the metrics of the checkpoint."""
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in self._before:
                config.scheduler.step(self._before[config.monitor])  # type: ignore[arg-type]  # a plateau's takes a metric
        self._before = {}


class ProgressReporter(pl.Callback):
    """Report of progress to a function: after batches, at most ten times a second, and at the end of every epoch."""

    def __init__(self, report: Callable[[TrainingProgress], None]) -> None:
        self._report = report
        self._last_report = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report the progress, unless the last report is too recent."""
        if time.monotonic() - self._last_report > _SECONDS_BETWEEN_REPORTS:
            self._report_progress(trainer, batch_idx + 1, is_end=False)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's metrics."""
        self._report_progress(trainer, int(trainer.num_training_batches), is_end=True)

    def _report_progress(self, trainer: pl.Trainer, batch: int, *, is_end: bool) -> None:
        self._last_report = time.monotonic()
        per_epoch = trainer.num_training_batches
        epochs = trainer.max_epochs if trainer.max_epochs not in (None, -1) else None
        finite = epochs is not None and per_epoch != float("inf")
        self._report(
            TrainingProgress(
                batches=trainer.current_epoch * int(per_epoch) + batch if finite else batch,
                total_batches=int(epochs * per_epoch) if epochs is not None and finite else None,
                epoch=trainer.current_epoch,
                epochs=epochs,
                metrics=latest_metrics(trainer),
                is_end_of_epoch=is_end,
            )
        )


def latest_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """Return the metrics logged last, epoch means under their plain names."""
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    means = {k.removesuffix("_epoch"): v for k, v in logged.items() if not k.endswith("_step")}
    return dict(sorted(means.items()))


class PatchLossRecorder(pl.Callback):
    """Recorder of the loss of each training patch, of all processes; updates the data's loss map as an epoch ends.

    The loss map is part of the data module's state, and so of checkpoints, which are written afterwards.
    """

    def __init__(self, data: ImagePairs) -> None:
        self._data = data
        self._recorded: list[tuple[Tensor, Tensor]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the records of an unfinished epoch."""
        self._recorded.clear()
        if isinstance(pl_module, Framework):
            pl_module.rates_patches = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the losses of a batch on their device, without waiting for it."""
        if isinstance(pl_module, Framework) and pl_module.patch_losses is not None:
            self._recorded.append((batch[PATCH_POSITIONS], pl_module.patch_losses))
            pl_module.patch_losses = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Update the loss map with the losses of all processes."""
        loss_map = self._data.loss_map
        if loss_map is None or not self._recorded:
            return
        places, losses = (torch.cat(column).cpu().numpy() for column in zip(*self._recorded, strict=True))
        sums = torch.from_numpy(np.stack(loss_map.sum_by_cell(places, losses.astype(np.float64))))
        shared = trainer.strategy.reduce(sums.to(pl_module.device, torch.float32), reduce_op="sum")
        loss_map.update(*shared.cpu().numpy())
        self._recorded.clear()
