"""The page of a run, one HTML file in its folder: curves, held-out patches as training went on, and all that was set."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from im2im_zoo.training.run import best_row
from im2im_zoo.workflows.describe import facts_of_recipe, text_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from im2im_zoo.evaluation import Curve, Headline, Panel, Sample
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.training.pictures import Snapshot
    from im2im_zoo.training.run import TrainingRun

_EPOCHS_SHOWN = 6


def write_run_page(run: "TrainingRun") -> Path:
    """Write `RUN/run.html`, whole or not at all.

    Raises:
        EvaluationError: it cannot be written.
    """
    from im2im_zoo.evaluation import Report, write_report
    from im2im_zoo.training.pictures import read_snapshots

    data = run.provenance["data"]
    state = run.provenance["state"]
    reason = f": {run.provenance['reason']}" if "reason" in run.provenance else ""
    report = Report(
        title=run.recipe.name,
        summary=f"Training is {state}{reason}. Epochs: {len(run.metrics)}. Images that train: {len(data['train'])}, that validate: "
        f"{len(data['validation'])}.",
        headlines=_headlines(run),
        samples=_samples(read_snapshots(run.path / "pictures"), run.recipe),
        curves=_curves(run),
        facts={
            "Recipe": {key: text_of(value) for key, value in facts_of_recipe(run.recipe).items()},
            "Data": {"validation": text_of(data["validation"]), "sha256": data["sha256"]},
            **({"Chosen": run.provenance["chosen"]} if run.provenance.get("chosen") else {}),
            "Machine": {
                key: text_of(run.provenance[key])
                for key in ("system", "processors", "accelerator", "git_revision", "versions")
            },
        },
        links={
            name: name
            for name in ("recipe.yaml", "metrics.csv", "environment.txt")
            if (run.path / name).is_file()
        },
    )
    return write_report(run.path / "run.html", report)


def _headlines(run: "TrainingRun") -> "tuple[Headline, ...]":
    """The best epoch's held-out figures, the one that says which epoch is best first."""
    from im2im_zoo.evaluation import Headline

    best = best_row(run)
    if best is None:
        return ()
    names = [
        run.recipe.monitor,
        *(key for key in best if key.startswith("val_") and key != run.recipe.monitor),
    ]
    last = run.metrics[-1]
    return tuple(
        Headline(name, best[name], {"last epoch": last[name]} if name in last else {}) for name in names[:4]
    )


def _curves(run: "TrainingRun") -> "tuple[Curve, ...]":
    from im2im_zoo.evaluation import curve_from_rows

    rows = run.metrics
    if not rows:
        return ()
    keys = list(dict.fromkeys(key for row in rows for key in row))
    losses = {
        key: word for key, word in (("train_loss", "training"), ("val_loss", "validation")) if key in keys
    }
    others = [key for key in keys if key not in (*losses, "epoch", "step")]
    by_figure: dict[str, dict[str, str]] = {"loss": losses} if losses else {}
    for key in others:
        part, _, figure = key.partition("_")
        known = part in ("train", "val")
        word = {"train": "training", "val": "validation"}.get(part, key)
        by_figure.setdefault(figure if known else key, {})[key] = word if known else key
    return tuple(
        curve_from_rows(rows, columns, title=figure.replace("_", " "), y_label=figure.rpartition("_")[2])
        for figure, columns in by_figure.items()
    )


def _samples(snapshots: "Sequence[Snapshot]", recipe: "Recipe") -> "tuple[Sample, ...]":
    """A row for each patch: its input and target, then the network's output after some epochs."""
    from im2im_zoo.evaluation import Panel, Sample

    if not snapshots:
        return ()
    chosen = snapshots if len(snapshots) <= _EPOCHS_SHOWN else (snapshots[0], *snapshots[1 - _EPOCHS_SHOWN :])
    first = chosen[-1].images
    rows = []
    for number in range(len(first["input"])):
        target = first["target"][number]
        contrast = _contrast(target) if first["output"].shape[1] == len(target) else None
        finished = _finishing(recipe)
        panels: list[Panel] = [
            _panel("input", first["input"][number], recipe, None),
            _panel("target", target, recipe, None),
        ]
        for snapshot in chosen:
            title = f"epoch {snapshot.epoch}"  # as in metrics.csv and the curves
            output = snapshot.images["output"][number]
            panels.append(
                _panel(title, output, recipe, None)
                if finished is None
                else _panel(title, finished(output), recipe, contrast)
            )
        rows.append(Sample(f"Held-out patch {number + 1}", tuple(panels)))
    return tuple(rows)


def _finishing(recipe: "Recipe") -> "Callable[[NDArray[np.float32]], NDArray[np.float32]] | None":
    """The recipe's postprocessing of a patch's output; None where it takes statistics, which are the whole image's."""
    import xarray as xr

    from im2im_zoo.processing import fit
    from im2im_zoo.processing.operations import requirements

    operations = recipe.output.postprocessing
    if any(operation.id == "custom" or requirements(operation) for operation in operations):
        return None

    def finish(output: "NDArray[np.float32]") -> "NDArray[np.float32]":
        image = xr.DataArray(output, dims=("channel", *recipe.space))
        return fit(operations, image)(image).to_numpy().astype(np.float32)

    return finish


def _contrast(target: "NDArray[np.float32]") -> tuple[float, float] | None:
    low, high = np.percentile(target, (0.5, 99.5))
    low, high = (low, high) if high > low else (target.min(), target.max())
    return (float(low), float(high)) if high > low else None


def _panel(
    title: str, patch: "NDArray[np.float32]", recipe: "Recipe", contrast: tuple[float, float] | None
) -> "Panel":
    import xarray as xr

    from im2im_zoo.evaluation import Panel

    image = xr.DataArray(patch, dims=("channel", *recipe.space))
    return Panel(title, image, contrast=contrast, view="middle")
