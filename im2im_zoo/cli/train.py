"""`im2im-zoo train`."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import metrics_text, print_table, progress, say
from im2im_zoo.recipe.load import find_recipe, load_recipe, parse_value

if TYPE_CHECKING:
    from im2im_zoo.data.patches.advice import Choice
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.training.callbacks import TrainingProgress
    from im2im_zoo.training.run import TrainingRun

# The page takes a few seconds to write.
_PAGE_SECONDS = 120.0
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
_RATES = 20  # in the table of those that were tried


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
    from im2im_zoo.training.run import best_row
    from im2im_zoo.training.train import train  # what is not installed is said before anything else

    # Lightning, or a cluster, starts the other processes of a distributed training by this same command: they are silent.
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):
        train(loaded, output, resume=resume, allow_code=allow_code, root=root)
        return
    say(f"Training {loaded.name!r} into {output}")
    done = train_with_progress(loaded, output, resume, allow_code, root)
    best = best_row(done)
    if best:
        say(f"Best epoch {best['epoch']:.0f} of {len(done.metrics)}: {metrics_text(best)}")
    say(f"Done: {output}\nPage: {output / 'run.html'}\nNext: im2im-zoo export {output} --output PACKAGE")


def find_rate(recipe: str, arguments: Sequence[str], allow_code: Sequence[str]) -> None:
    """Try learning rates, print what the loss does at some of them, and suggest one."""
    loaded, root = load_recipe(recipe, parse_overrides(arguments)), find_recipe(recipe).parent
    from im2im_zoo.training.rate import find_rate as search

    say(f"Trying learning rates for {loaded.name!r}")
    found = search(loaded, allow_code=allow_code, root=root, explain=say_choice)
    shown = range(0, len(found.rates), max(1, len(found.rates) // _RATES))
    print_table(("learning rate", "smoothed loss"), [(found.rates[i], found.losses[i]) for i in shown])
    say(
        f"The loss falls fastest at {found.suggestion:.2g}: "
        f"--framework.kwargs.optimizer.kwargs.lr={found.suggestion:.2g}, with the optimizer of the recipe"
    )


def train_with_progress(
    recipe: "Recipe", output: Path, resume: bool, allow_code: Sequence[str], root: Path | None = None
) -> "TrainingRun":
    """Train with a progress bar over all epochs; the run's page is written on the way and at the end, however it ends."""
    from im2im_zoo.training.run import is_run, open_run
    from im2im_zoo.training.train import train
    from im2im_zoo.workflows.run_page import write_run_page

    written = time.monotonic()
    with progress("Training", "batches") as bar:

        def report(state: "TrainingProgress") -> None:
            nonlocal written
            epoch = f"epoch {state.epoch + 1}" + (f"/{state.epochs}" if state.epochs else "")
            bar(state.batches, state.total_batches, f"{epoch} {metrics_text(state.metrics)}")
            if time.monotonic() - written > _PAGE_SECONDS:
                write_run_page(open_run(output))
                written = time.monotonic()

        ours = resume or not is_run(output)  # else the run is another one, which training refuses to touch
        try:
            return train(
                recipe,
                output,
                resume=resume,
                allow_code=allow_code,
                root=root,
                report=report,
                explain=say_choice,
            )
        finally:
            if ours and is_run(output):
                write_run_page(open_run(output))


def say_choice(choice: "Choice") -> None:
    """A line for what was chosen, in the form in which it would be given, and why."""
    say(f"--{choice.key}={str(choice.value).replace(' ', '')} is chosen: {choice.reason}")
