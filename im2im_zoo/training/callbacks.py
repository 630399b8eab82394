"""Lightning callbacks of every training: metrics as CSV, exact resume, progress. None of them prints."""

import csv
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

_SECONDS_BETWEEN_REPORTS = 0.1


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far training is: batches done of all epochs, and the latest metrics."""

    batches: int
    total_batches: int | None
    epoch: int
    epochs: int | None
    metrics: Mapping[str, float]


class MetricsTable(pl.Callback):
    """Appends one row of metrics an epoch to a CSV file; a resumed run goes on where its checkpoint was.

    What is validated is blank in the epochs after which nothing was (`trainer.check_val_every_n_epoch`).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._started = 0.0
        self._validated = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the rows of the epochs that the checkpoint has done."""
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
        """Know that the metrics of validation are of this epoch."""
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
        partial = self._path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows)
        partial.replace(self._path)


class EpochSeed(pl.Callback):
    """Seeds all random generators anew at the start of each epoch, so that a resumed run ends as an unbroken one."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed by (seed, epoch, rank): each process of a distributed training draws its own numbers."""
        state = np.random.SeedSequence([self._seed, trainer.current_epoch, trainer.global_rank])
        seed = int(state.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)  # some transforms draw from the global generator
        torch.manual_seed(seed)


class PlateauSteps(pl.Callback):
    """Has a resumed run do what an unbroken one does after the checkpoint of an epoch: schedules that wait for a plateau step then."""

    def __init__(self) -> None:
        self._watched: dict[str, float] = {}
        self._before: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what the schedules watch, for the checkpoint."""
        names = {str(c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau}
        known = trainer.callback_metrics
        self._watched = {name: float(known[name]) for name in sorted(names & known.keys())}

    def state_dict(self) -> dict[str, Any]:
        """What the schedules watch."""
        return {"watched": self._watched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it from the checkpoint of a run that is resumed."""
        self._before = state_dict["watched"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step."""
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and config.interval == "epoch" and config.monitor in self._before:
                config.scheduler.step(self._before[config.monitor])  # type: ignore[arg-type]  # a plateau's takes a metric
        self._before = {}


class Reporter(pl.Callback):
    """Tells a function how far training is: after batches, ten times a second at most, and at the end of every epoch."""

    def __init__(self, report: Callable[[TrainingProgress], None]) -> None:
        self._report = report
        self._told = 0.0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report, if the last report is long enough ago."""
        if time.monotonic() - self._told > _SECONDS_BETWEEN_REPORTS:
            self._tell(trainer, batch_idx + 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch's metrics."""
        self._tell(trainer, int(trainer.num_training_batches))

    def _tell(self, trainer: pl.Trainer, batch: int) -> None:
        self._told = time.monotonic()
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
            )
        )


def latest_metrics(trainer: pl.Trainer) -> dict[str, float]:
    """The metrics logged last, epoch means under their plain names."""
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    means = {k.removesuffix("_epoch"): v for k, v in logged.items() if not k.endswith("_step")}
    return dict(sorted(means.items()))
