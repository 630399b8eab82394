"""Learning rate search: a short training at ever larger learning rates (Smith 2017, arXiv:1506.01186)."""

import itertools
import math
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.advice import Choice
from im2im_zoo.data.statistics import fill_statistics
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.auto_configure import configure_patches
from im2im_zoo.training.build import build_framework, build_trainer_options, check_recipe, check_shapes
from im2im_zoo.training.callbacks import EpochSeed
from im2im_zoo.training.failures import silence_lightning
from im2im_zoo.training.own_code import allow_modules, check_custom_code

_SMOOTHING = 0.9
_LEAST_STEPS = 20


@dataclass(frozen=True, slots=True)
class RateSearch:
    """Result of a learning rate search.

    Attributes:
        rates: the learning rates that were tried.
        losses: the smoothed loss at each.
        suggestion: the rate at which the loss fell fastest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float


def find_rate(
    recipe: Recipe,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    allow_code: Collection[str] = (),
    root: Path | None = None,
    explain: Callable[[Choice], None] | None = None,
) -> RateSearch:
    """Train a recipe for some steps at increasing learning rates until the loss diverges.

    Args:
        recipe: its framework has one loss and one optimizer.
        lowest, highest: range of the rates, which grow by a constant factor.
        steps: largest number of steps.
        allow_code, root, explain: as in `train`.

    Raises:
        Im2ImError: as `train`; a framework with several losses; no rate at which the loss falls.
    """
    allow_modules(root, allow_code)
    check_recipe(recipe, allow_code)
    check_custom_code(recipe, root, allow_code)
    chosen = configure_patches(fill_statistics(recipe, allow_code, root).recipe, allow_code)
    recipe = chosen.recipe
    if explain is not None:
        for choice in chosen.choices:
            explain(choice)
    data = ImagePairs(recipe, allow_code=allow_code, root=root)
    rising = _RisingRate(lowest, highest, steps)
    with silence_lightning(), tempfile.TemporaryDirectory() as folder:
        pl.seed_everything(recipe.seed, workers=True, verbose=False)
        framework = build_framework(recipe, allow_code)
        if not framework.automatic_optimization:
            raise TrainingError(
                f"{recipe.framework.callable} trains networks against each other, so its losses do not show which learning rate is "
                "good; keep the rate of its recipe"
            )
        data.setup("fit")
        check_shapes(framework, recipe, next(iter(data.val_dataloader())))
        options = build_trainer_options(recipe, Path(folder), allow_code)
        options |= {"max_epochs": -1, "max_steps": steps}
        options |= {"callbacks": [EpochSeed(recipe.seed), rising], "logger": False, "limit_val_batches": 0}
        try:
            pl.Trainer(
                **options,
                default_root_dir=folder,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(framework, datamodule=data)
        except TrainingError:  # a loss that is not finite: the rates are too large by now
            if len(rising.losses) < _LEAST_STEPS:
                raise
        finally:
            data.teardown("fit")
    return suggest_rate(rising.rates, rising.losses)


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> RateSearch:
    """Return the rate at which the smoothed loss falls fastest over the logarithm of the rate.

    Args:
        rates: of each step.
        losses: of each step.

    Raises:
        TrainingError: too few steps before the loss diverged, or no rate at which it fell.
    """
    smooth = _smooth(losses)
    if len(smooth) < _LEAST_STEPS:
        raise TrainingError(
            f"the loss diverged after {len(smooth)} steps: start at a lower rate, or run `im2im-zoo data check`"
        )
    slopes = [
        (after - before) / math.log(rates[i + 2] / rates[i])
        for i, (before, after) in enumerate(zip(smooth, smooth[2:], strict=False))
    ]
    # In the first steps the mean is over few losses.
    least = min(range(_LEAST_STEPS // 2, len(slopes)), key=lambda i: slopes[i])
    if slopes[least] >= 0:
        raise TrainingError(
            "the loss does not fall at any learning rate: run `im2im-zoo data check`, or try another loss"
        )
    return RateSearch(tuple(rates[: len(smooth)]), tuple(smooth), rates[least + 1])


class _RisingRate(pl.Callback):
    """Increase of the learning rate at each step; training stops when the loss diverges."""

    def __init__(self, lowest: float, highest: float, steps: int) -> None:
        factor = (highest / lowest) ** (1 / max(steps - 1, 1))
        self._rates = (lowest * factor**i for i in itertools.count())
        self.rates: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rate of this step, overriding any schedule."""
        self.rates.append(next(self._rates))
        for optimizer in trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rates[-1]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the loss, and stop if it diverges."""
        self.losses.append(float(outputs["loss"] if isinstance(outputs, dict) else outputs))
        if _has_diverged(_smooth(self.losses)):
            trainer.should_stop = True


def _has_diverged(smooth: Sequence[float]) -> bool:
    """Whether the loss exceeds its start by more than it has ever fallen."""
    fallen = smooth[0] - min(smooth)
    return len(smooth) > _LEAST_STEPS and smooth[-1] > smooth[0] + fallen + 0.1 * abs(smooth[0])


def _smooth(losses: Sequence[float]) -> list[float]:
    """Return exponential means, corrected for the bias of their start, up to the first loss that is not finite."""
    mean, found = 0.0, []
    for number, loss in enumerate(losses, 1):
        if not math.isfinite(loss):
            break
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        found.append(mean / (1 - _SMOOTHING**number))
    return found
