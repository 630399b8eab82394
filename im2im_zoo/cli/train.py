"""`im2im-zoo train`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import metrics_text, print_line, print_table, progress, time_left
from im2im_zoo.cli.messages import errors
from im2im_zoo.recipe.load import find_recipe, load_recipe, parse_value

if TYPE_CHECKING:
    from im2im_zoo.data.patches.advice import Choice
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.training.callbacks import TrainingProgress
    from im2im_zoo.training.run import TrainingRun

_RATES = 20  # learning rates in the printed table


def parse_overrides(arguments: Sequence[str]) -> list[tuple[str, object]]:
    """Return the overrides of a recipe, `--dotted.key=value`, from arguments of the command line."""
    overrides = []
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or not key:
            raise typer.BadParameter(
                f"{argument!r} is not an option; override a recipe's key by --dotted.key=value"
            )
        overrides.append((key, parse_value(value)))
    return overrides


def run(recipe: str, arguments: Sequence[str], output: Path, resume: bool, allow_code: Sequence[str]) -> None:
    """Train, and print the path of the run and the metrics of its best epoch."""
    loaded, root = load_recipe(recipe, parse_overrides(arguments)), find_recipe(recipe).parent
    from im2im_zoo.training.run import best_row
    from im2im_zoo.workflows.training import is_first_process, train

    if not is_first_process():  # it prints nothing
        train(loaded, output, resume=resume, allow_code=allow_code, root=root)
        return
    print_line(f"Training {loaded.name!r} into {output}")
    done = train_with_progress(loaded, output, resume, allow_code, root)
    best = best_row(done)
    if best:
        print_line(f"Best epoch: {best['epoch'] + 1:.0f} of {len(done.metrics)}: {metrics_text(best)}")
    print_line(
        f"Done: {output}\nPage: {output / 'run.html'}\nNext: im2im-zoo export {output} --output PACKAGE"
    )


def find_rate(recipe: str, arguments: Sequence[str], allow_code: Sequence[str]) -> None:
    """Try learning rates, print the loss at some of them, and suggest one."""
    loaded, root = load_recipe(recipe, parse_overrides(arguments)), find_recipe(recipe).parent
    from im2im_zoo.training.rate import find_rate as search

    print_line(f"Trying learning rates for {loaded.name!r}")
    found = search(loaded, allow_code=allow_code, root=root, explain=print_choice)
    shown = range(0, len(found.rates), max(1, len(found.rates) // _RATES))
    print_table(("learning rate", "smoothed loss"), [(found.rates[i], found.losses[i]) for i in shown])
    print_line(
        f"The loss falls fastest at {found.suggestion:.2g}: "
        f"--framework.kwargs.optimizer.kwargs.lr={found.suggestion:.2g}, with the optimizer of the recipe"
    )


def train_with_progress(
    recipe: "Recipe", output: Path, resume: bool, allow_code: Sequence[str], root: Path | None = None
) -> "TrainingRun":
    """Train with a progress bar over all epochs; without a terminal, a line an epoch."""
    from im2im_zoo.workflows.training import train

    started = time.monotonic()
    first = None  # epoch of this process

    with progress("Training", "batches", lines=False) as bar:

        def report(state: "TrainingProgress") -> None:
            nonlocal first
            first = state.epoch if first is None else first
            epoch = f"epoch {state.epoch + 1}" + (f"/{state.epochs}" if state.epochs else "")
            bar(state.batches, state.total_batches, f"{epoch} {metrics_text(state.metrics)}")
            if state.is_end_of_epoch:
                done = state.epoch + 1 - first
                left = (
                    f", {time_left(time.monotonic() - started, done / (state.epochs - first))}"
                    if state.epochs
                    else ""
                )
                print_line(f"{epoch}{left}: {metrics_text(state.metrics)}", file_only=errors.is_terminal)

        return train(
            recipe,
            output,
            resume=resume,
            allow_code=allow_code,
            root=root,
            report=report,
            explain=print_choice,
            warn=lambda message: print_line(f"warning: {message}"),
        )


def print_choice(choice: "Choice") -> None:
    """Print an automatic choice as the option that would set it, with its reason."""
    print_line(f"Selected --{choice.key}={str(choice.value).replace(' ', '')} ({choice.reason})")
