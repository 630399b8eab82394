"""Page of a run, one HTML file in its folder: metrics, curves, held-out patches over epochs, recipe, data and machine."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.evaluation import Curve, Headline, Panel, Report, Sample, curve_from_rows, write_report
from im2im_zoo.processing import fit
from im2im_zoo.processing.operations import requirements
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.pictures import Snapshot, read_snapshots
from im2im_zoo.training.run import TrainingRun, best_row
from im2im_zoo.workflows.describe import facts_of_recipe, text_of

_EPOCHS_SHOWN = 6
_CARDS = 4
_FILES = ("recipe.yaml", "metrics.csv", "environment.txt")
_MACHINE = ("system", "processors", "accelerator", "git_revision", "versions")


def write_run_page(run: TrainingRun) -> Path:
    """Write `RUN/run.html`, whole or not at all, whatever the state of the run.

    Example:
        >>> write_run_page(open_run("run"))  # doctest: +SKIP

    Raises:
        EvaluationError: the file cannot be written.
    """
    return write_report(run.path / "run.html", run_report(run))


def run_report(run: TrainingRun) -> Report:
    """Return the content of the page of a run."""
    data = run.provenance["data"]
    reason = f": {run.provenance['reason']}" if "reason" in run.provenance else ""
    return Report(
        title=run.recipe.name,
        summary=f"Training is {run.provenance['state']}{reason}. Epochs: {len(run.metrics)}. "
        f"Training images: {len(data['train'])}. Validation images: {len(data['validation'])}.",
        headlines=_headlines(run),
        samples=_samples(read_snapshots(run.path / "pictures"), run.recipe, _channel_names(run)),
        curves=_curves(run),
        facts={
            "Recipe": {key: text_of(value) for key, value in facts_of_recipe(run.recipe).items()},
            "Data": {"validation": text_of(data["validation"]), "sha256": data["sha256"]},
            **({"Chosen": run.provenance["chosen"]} if run.provenance.get("chosen") else {}),
            "Machine": {key: text_of(run.provenance[key]) for key in _MACHINE},
        },
        links={name: name for name in _FILES if (run.path / name).is_file()},
    )


def _headlines(run: TrainingRun) -> tuple[Headline, ...]:
    """Return the best epoch's validation metrics, compared with the last epoch's; the monitored one first."""
    best = best_row(run)
    if best is None:
        return ()
    monitor, last = run.recipe.monitor, run.metrics[-1]
    names = [monitor, *(key for key in best if key.startswith("val_") and key != monitor)]
    return tuple(
        Headline(name, best[name], {"last epoch": last[name]} if name in last else {})
        for name in names[:_CARDS]
    )


def _curves(run: TrainingRun) -> tuple[Curve, ...]:
    """Return a curve for each metric, with training and validation in one."""
    rows = run.metrics
    if not rows:
        return ()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    losses = {
        key: word for key, word in (("train_loss", "training"), ("val_loss", "validation")) if key in keys
    }
    others = [key for key in keys if key not in (*losses, "epoch", "step")]
    columns_by_metric: dict[str, dict[str, str]] = {"loss": losses} if losses else {}
    for key in others:
        part, _, metric = key.partition("_")
        word = {"train": "training", "val": "validation"}.get(part)
        columns_by_metric.setdefault(metric if word else key, {})[key] = word or key
    return tuple(
        curve_from_rows(rows, columns, title=metric.replace("_", " "), y_label=metric.rpartition("_")[2])
        for metric, columns in columns_by_metric.items()
    )


def _channel_names(run: TrainingRun) -> dict[str, Sequence[str]]:
    """Return the names of the channels of inputs and targets, where the recipe or the files have some."""
    of_files = run.provenance["data"].get("channels", {})
    of_recipe = {"input": run.recipe.input.channels, "target": run.recipe.output.channels}
    return {side: names or of_files.get(side, ()) for side, names in of_recipe.items()}


def _samples(
    snapshots: Sequence[Snapshot], recipe: Recipe, names: Mapping[str, Sequence[str]]
) -> tuple[Sample, ...]:
    """Return a row for each patch: its input and target, then the network's output after some epochs.

    Args:
        snapshots: of the run.
        recipe: of the run.
        names: of the channels of inputs and targets, where known.
    """
    if not snapshots:
        return ()
    chosen = snapshots if len(snapshots) <= _EPOCHS_SHOWN else (snapshots[0], *snapshots[1 - _EPOCHS_SHOWN :])
    postprocess = _postprocessing(recipe)
    return tuple(
        Sample(f"Held-out patch {number + 1}", _panels(chosen, number, recipe, names, postprocess))
        for number in range(len(chosen[-1].images["input"]))
    )


def _panels(
    snapshots: Sequence[Snapshot],
    number: int,
    recipe: Recipe,
    names: Mapping[str, Sequence[str]],
    postprocess: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None,
) -> tuple[Panel, ...]:
    images = snapshots[-1].images
    target = images["target"][number]
    contrast = _contrast(target) if images["output"].shape[1] == len(target) else None
    panels = [
        _panel("input", images["input"][number], recipe, None, names.get("input", ())),
        _panel("target", target, recipe, None, names.get("target", ())),
    ]
    for snapshot in snapshots:
        title = f"epoch {snapshot.epoch}"  # as in metrics.csv and the curves
        output = snapshot.images["output"][number]
        if postprocess is None:
            panels.append(_panel(title, output, recipe, None, names.get("target", ())))
        else:
            panels.append(_panel(title, postprocess(output), recipe, contrast, names.get("target", ())))
    return tuple(panels)


def _postprocessing(recipe: Recipe) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """Return the recipe's postprocessing of a patch; None where it needs statistics, which are the whole image's."""
    operations = recipe.output.postprocessing
    if any(operation.id == "custom" or requirements(operation) for operation in operations):
        return None

    def postprocess(output: NDArray[np.float32]) -> NDArray[np.float32]:
        image = xr.DataArray(output, dims=("channel", *recipe.space))
        return fit(operations, image)(image).to_numpy().astype(np.float32)

    return postprocess


def _contrast(target: NDArray[np.float32]) -> tuple[float, float] | None:
    low, high = np.percentile(target, (0.5, 99.5))
    low, high = (low, high) if high > low else (target.min(), target.max())
    return (float(low), float(high)) if high > low else None


def _panel(
    title: str,
    patch: NDArray[np.float32],
    recipe: Recipe,
    contrast: tuple[float, float] | None,
    names: Sequence[str],
) -> Panel:
    image = xr.DataArray(patch, dims=("channel", *recipe.space))
    if len(names) == len(patch):
        image = image.assign_coords(channel=list(names))
    return Panel(title, image, contrast=contrast, view="middle")
