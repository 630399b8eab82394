"""`im2im-zoo train`."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import progress, say
from im2im_zoo.recipe_file import find_recipe, load_recipe, parse_value

if TYPE_CHECKING:
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.training.callbacks import TrainingProgress
    from im2im_zoo.training.run import Run


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, object]]:
    """The overrides among the arguments of the command line: `--dotted.key=value`."""
    overrides = []
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise typer.BadParameter(
                f"{argument!r} is no option; override a recipe's key by --dotted.key=value"
            )
        overrides.append((key, parse_value(value)))
    return overrides


def run(recipe: str, arguments: Sequence[str], output: Path, resume: bool, allow_code: Sequence[str]) -> None:
    """Train and say where the run is and how well it did."""
    loaded, root = load_recipe(recipe, parse_overrides(arguments)), find_recipe(recipe).parent
    from im2im_zoo.training.train import train  # what is not installed is said before anything else

    # Lightning starts the other processes of a distributed training by this same command: they are silent.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        train(loaded, output, resume=resume, allow_code=allow_code, root=root)
        return
    say(f"Training {loaded.name!r} into {output}")
    done = train_with_progress(loaded, output, resume, allow_code, root)
    best = best_row(done)
    if best:
        say(f"Best epoch {best['epoch']:.0f} of {len(done.metrics)}: {metrics_text(best)}")
    say(f"Done: {output}\nNext: im2im-zoo export {output} --output PACKAGE")


def train_with_progress(
    recipe: "Recipe", output: Path, resume: bool, allow_code: Sequence[str], root: Path | None = None
) -> "Run":
    """Train with a progress bar over all epochs."""
    from im2im_zoo.training.train import train

    with progress("Training", "batches") as bar:

        def report(state: "TrainingProgress") -> None:
            epoch = f"epoch {state.epoch + 1}" + (f"/{state.epochs}" if state.epochs else "")
            bar(state.batches, state.total_batches, f"{epoch} {metrics_text(state.metrics)}")

        return train(recipe, output, resume=resume, allow_code=allow_code, root=root, report=report)


def best_row(run: "Run") -> dict[str, float] | None:
    """The row of metrics of the epoch that the best checkpoint was made in."""
    rows = [dict(row) for row in run.metrics if run.recipe.monitor in row]
    choose = min if run.recipe.monitor_mode == "min" else max
    return choose(rows, key=lambda row: row[run.recipe.monitor]) if rows else None


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Losses and metrics in one line: `train_loss 0.12  val_dice 0.93`."""
    return "  ".join(
        f"{k} {v:.4g}" for k, v in metrics.items() if k not in ("epoch", "step", "seconds", "learning_rate")
    )
