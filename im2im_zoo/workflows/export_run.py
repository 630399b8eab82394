"""Export of a run as a package, with metrics on its held-out images, predicted as users predict."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from im2im_zoo.core.errors import PackageError
from im2im_zoo.data import find_pairs, open_validation_pairs
from im2im_zoo.data.pairing.image_pair import open_side_image
from im2im_zoo.networks import Grid
from im2im_zoo.packaging import (
    Exported,
    Metrics,
    Portable,
    PortableLoss,
    export_package,
    make_portable,
    network_grid,
)
from im2im_zoo.packaging.editing.changes import Changes
from im2im_zoo.packaging.export.output_folder import check_free
from im2im_zoo.packaging.export.weights import FORMATS, NEWEST_OPSET, OPSET
from im2im_zoo.packaging.try_page import TRY_PAGE
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import Component
from im2im_zoo.training.run import TrainingRun, load_framework, open_run
from im2im_zoo.workflows.held_out import (
    HeldOut,
    Progress,
    baseline_evaluations,
    compare_packages,
    measure_package,
)
from im2im_zoo.workflows.metadata import with_metadata, without_sample_metadata

Report = Callable[[str], None]


def export_run(
    run: TrainingRun | str | Path,
    output: str | Path,
    *,
    zip_path: str | Path | None = None,
    weights: Sequence[str] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    overwrite: bool = False,
    allow_code: Sequence[str] = (),
    portable: bool = False,
    opset: int = OPSET,
    mirrored_test_output: bool = False,
    try_page: bool = True,
    metadata: Changes | None = None,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Exported:
    """Write the package of a run, with the metrics that its users get on the run's validation images.

    The package is written, opened and run with the default settings of `predict`; then its README and RDF state the metrics.

    Example:
        >>> package = export_run("run", "package")  # doctest: +SKIP
        >>> package.metrics.values["dice"]  # doctest: +SKIP

    Args:
        run: an open run, or its folder.
        output: folder to create for the package.
        zip_path: also write the package as one zip file.
        weights: formats to write (default: onnx, torchscript and pytorch_state_dict).
        checkpoint: which one to export.
        overwrite: replace existing files at `output` and `zip_path`.
        allow_code: Python packages, or modules beside the recipe, whose code may run; `custom`: the sources of the recipe's
            custom operations.
        portable: for programs without custom operations: fix the values that these measure on each image, or move them into the network.
        opset: opset of the ONNX weights, 17 to 23; runtimes from before 2023 read 17 only.
        mirrored_test_output: also write the output for the test input mirrored by the halo, with which programs that pad an image so
            (deepImageJ) can be compared up to the border.
        try_page: also write `try.html` into the folder, a page that runs the package in a browser. If there can be none, `report`
            gets the reason. It is not part of the package: neither in its RDF nor in its zip.
        metadata: authors, licence and others that the recipe lacks, or has otherwise.
        progress: of each prediction of a held-out image, see `predict`.
        report: called with each message for the user (default: there are none).

    Returns:
        The package, its metrics, and warnings for its author.

    Raises:
        TrainingError: `run` is not a run folder, or lacks the checkpoint.
        PackageError: an argument is out of range, the network cannot be packaged, or a portable package would be much worse.
            Nothing is left at `output` then.
        Im2ImError: predicting or evaluating the images fails.
    """
    formats = tuple(FORMATS if weights is None else weights)
    _check_arguments(checkpoint, formats, opset)
    notify: Report = report or (lambda message: None)
    trained = run if isinstance(run, TrainingRun) else open_run(run)
    if trained.provenance["state"] != "complete":
        notify(
            f"warning: training of {trained.path} is {trained.provenance['state']}; exporting its {checkpoint} checkpoint"
        )
    output, zip_path = Path(output), None if zip_path is None else Path(zip_path)
    check_free(output, zip_path, overwrite)
    trained = replace(trained, recipe=_with_metadata(trained, metadata, notify))
    framework = load_framework(trained, checkpoint, allow_code)
    network, recipe = framework.exported_network().eval(), trained.recipe
    samples = open_validation_pairs(recipe)
    source = _Source(
        network,
        recipe,
        HeldOut(recipe, samples, trained.path, "custom" in allow_code),
        framework.exported_architecture(recipe.network),
        network_grid(network, recipe, samples, formats),
        {
            "weights": formats,
            "opset": opset,
            "provenance": dict(trained.provenance),
            "trusted": allow_code,
            "mirrored_test_output": mirrored_test_output,
        },
    )
    if not source.held_out.measurable:
        notify("note: no metrics are measured because no held-out image has a target")
    made = _made_portable(source, notify) if portable else None
    notify(f"Exporting to {output}")
    complete = (lambda folder: _add_page(folder, output, notify)) if try_page else None
    places = {"zip_path": zip_path, "overwrite": overwrite, "complete": complete}
    if made is not None:
        return _export_portable(source, made, output, places, progress, notify)
    return source.export(output, measure=_measurement(source, progress, notify), **places)


def _add_page(folder: Path, output: Path, notify: Report) -> None:
    """Write the page of a package that is about to be moved to `output`, or report why there is none."""
    from im2im_zoo.workflows.browser.page import add_page

    announced: list[str] = []

    def downloading(have: int, total: int | None) -> None:
        if not announced:
            announced.append("Downloading onnxruntime-web, once")
            notify(announced[0])

    problem = add_page(folder, output, report=downloading)
    if problem is not None:
        notify(f"note: there is no {TRY_PAGE} to run the package in a browser: {problem}")


def _with_metadata(trained: TrainingRun, metadata: Changes | None, notify: Report) -> Recipe:
    """Return the recipe of a run without metadata of a sample recipe, and with those that are given."""
    data = trained.provenance["data"]
    names = (*data["train"], *data.get("train_targets", ()), *data["validation"])
    recipe, messages = without_sample_metadata(trained.recipe, names)
    for message in messages:
        notify(f"note: {message}")
    return recipe if metadata is None else with_metadata(recipe, metadata)


def _check_arguments(checkpoint: str, formats: Sequence[str], opset: int) -> None:
    if checkpoint not in ("best", "last"):
        raise PackageError(f"checkpoint {checkpoint!r} is unknown: choose best or last")
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise PackageError(
            f"weights {', '.join(map(repr, unknown)) or '(none)'}: choose at least one of {', '.join(FORMATS)}"
        )
    if not OPSET <= opset <= NEWEST_OPSET:
        raise PackageError(f"opset {opset} cannot be written: choose {OPSET} to {NEWEST_OPSET}")


@dataclass(frozen=True)
class _Source:
    """A network to export and the recipe to run it with; `options` are those of `export_package` that all its packages have."""

    network: nn.Module
    recipe: Recipe
    held_out: HeldOut
    architecture: Component
    grid: Grid
    options: dict[str, Any]

    def export(self, output: Path, **more: Any) -> Exported:
        """Write a package; `more` are further arguments of `export_package`."""
        return export_package(
            self.network,
            self.recipe,
            self.held_out.samples,
            output,
            architecture=self.architecture,
            root=self.held_out.root,
            allow_code=self.held_out.allow_code,
            grid=self.grid,
            **self.options,
            **more,
        )


def _measurement(
    source: _Source, progress: Progress | None, notify: Report
) -> Callable[[Path], Metrics] | None:
    """Return a function that measures a package; None without images to measure it on."""
    held_out = source.held_out
    if not held_out.measurable:
        return None

    def measure(folder: Path) -> Metrics:
        notify(f"Measuring on {len(held_out.measurable)} held-out image(s)")
        return Metrics(measure_package(folder, held_out, progress).metrics, _baselines(held_out))

    return measure


def _baselines(held_out: HeldOut) -> dict[str, float]:
    if not held_out.measurable:
        return {}
    return {
        f"{method} {name}": value
        for method, evaluation in baseline_evaluations(held_out).items()
        for name, value in evaluation.metrics.items()
    }


def _made_portable(source: _Source, notify: Report) -> Portable | None:
    """Return the portable model; None if there is nothing to fix."""
    recipe = source.recipe
    pairs = find_pairs(recipe.data, recipe.seed)
    images = [open_side_image(path, recipe, "input") for path in pairs.inputs]
    images += [open_side_image(pair.input, recipe, "input", pair.time, pair.more) for pair in pairs.train]
    made = make_portable(source.network, recipe, images)
    if not made.fixed:
        notify(
            "note: there is nothing to make portable: the recipe has no custom operation before the network"
        )
        return None
    for sentence in made.fixed:
        notify(f"Fixed: {sentence}")
    return made


def _export_portable(
    source: _Source,
    made: Portable,
    output: Path,
    places: dict[str, Any],
    progress: Progress | None,
    notify: Report,
) -> Exported:
    """Write the portable package if it is nearly as good as the package of the model as trained."""
    with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as scratch:
        notify("Packaging the model as trained, for comparison")
        original = source.export(Path(scratch) / "package")

        def measure(folder: Path) -> Metrics:
            notify("Measuring the loss of quality on the held-out image(s)")
            found = compare_packages(original.folder, folder, source.held_out, progress)
            before, after = ({} if e is None else e.metrics for e in (found.first, found.second))
            loss = PortableLoss(before, after, found.difference)
            notify(f"Predictions differ by {found.difference:.2g} of their standard deviation")
            loss.check()
            return Metrics(after, _baselines(source.held_out), made.record(loss))

        # Operations in front of the network work on single voxels, so all sizes stay the same.
        portable = replace(source, network=made.network, recipe=made.recipe)
        return portable.export(output, measure=measure, trained_with=source.recipe, **places)
