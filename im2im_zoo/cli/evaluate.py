"""`im2im-zoo evaluate`."""

from typing import Literal, cast

import typer

from im2im_zoo.cli.console import print_json, print_table

Task = Literal["regression", "semantic", "instance"]


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
    if task not in ("regression", "semantic", "instance"):
        raise typer.BadParameter(f"{task!r}; say regression, semantic or instance", param_hint="--task")
    from im2im_zoo.evaluation import evaluate
    from im2im_zoo.images import open_image

    result = evaluate(
        open_image(prediction, axes=axes),
        open_image(target, axes=target_axes),
        cast(Task, task),
        threshold=threshold,
        data_range=data_range,
    )
    if as_json:
        print_json(result.to_json())
    else:
        print_table(("metric", "value", "definition"), result.rows())
