"""`im2im-zoo evaluate`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_table, say

if TYPE_CHECKING:
    from im2im_zoo.evaluation import Evaluation


def run(
    prediction: str,
    target: str,
    task: str,
    axes: str | None,
    target_axes: str | None,
    threshold: float,
    data_range: float | None,
    as_json: bool,
) -> None:
    """Evaluate two images and print the figures."""
    from im2im_zoo.evaluation import TASKS, evaluate
    from im2im_zoo.images import open_image

    if task not in TASKS:
        raise typer.BadParameter(f"{task!r}; say one of {', '.join(TASKS)}", param_hint="--task")
    result = evaluate(
        open_image(_with_labels(prediction) if task == "instance" else prediction, axes=axes),
        open_image(target, axes=target_axes),
        task,
        threshold=threshold,
        data_range=data_range,
    )
    if as_json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        show_evaluation(result)


def _with_labels(prediction: str) -> str:
    """The labels that `predict` has put into an OME-Zarr, if there are any; else the image itself."""
    from im2im_zoo.processing.grouping import INSTANCES

    labels = Path(prediction) / "labels" / INSTANCES
    if not labels.is_dir():
        return prediction
    say(f"comparing {labels}")
    return str(labels)


def show_evaluation(result: "Evaluation") -> None:
    """Print the figures as a table with their definitions."""
    rows = [(name, value, _definition(result, name)) for name, value in result.flat().items()]
    print_table(("metric", "value", "definition"), rows)
    settings = ", ".join(f"{name}: {value}" for name, value in result.settings.items())
    for note in (*([settings] if settings else []), *result.notes):
        say(note)


def _definition(result: "Evaluation", name: str) -> str:
    return result.definitions.get(name, "") if "[" not in name else ""
