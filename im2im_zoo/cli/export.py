"""`im2im-zoo export`: a run, measured on its held-out images, becomes a package."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, cast

import typer

from im2im_zoo.cli.console import print_consumers, print_json, say
from im2im_zoo.cli.held_out import (
    OwnCode,
    baseline_evaluations,
    held_out_evaluation,
    prediction_difference,
)
from im2im_zoo.packaging.export.weights import FORMATS, NEWEST_OPSET, OPSET

if TYPE_CHECKING:
    from torch import nn

    from im2im_zoo.data import ImagePair
    from im2im_zoo.networks import Grid
    from im2im_zoo.packaging import Exported, Portable, PortableLoss
    from im2im_zoo.recipe import Recipe
    from im2im_zoo.training.run import TrainingRun


def run(
    run_path: Path,
    output: Path,
    zip_file: Path | None,
    weights: Sequence[str] | None,
    checkpoint: str,
    overwrite: bool,
    allow_code: Sequence[str],
    portable: bool,
    onnx_opset: str,
    as_json: bool,
) -> None:
    """Export a run and say where the package is, and which programs run it."""
    opset = _opset(onnx_opset)
    if checkpoint not in ("best", "last"):
        raise typer.BadParameter(f"{checkpoint!r}; say best or last", param_hint="--checkpoint")
    unknown = [w for w in weights or () if w not in FORMATS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}; say one of {', '.join(FORMATS)}", param_hint="--weights")
    from im2im_zoo.training.run import open_run

    trained = open_run(run_path)
    which = cast(Literal["best", "last"], checkpoint)
    if trained.provenance["state"] != "complete":
        say(
            f"warning: training of {run_path} is {trained.provenance['state']}; exporting its {which} checkpoint"
        )
    exported = export_run(
        trained, output, zip_file, weights, which, overwrite, allow_code, portable, opset=opset
    )
    show_consumers(exported, as_json)
    say(f"Next: im2im-zoo validate {output}\n      im2im-zoo predict {output} INPUT OUTPUT.ome.zarr")


def _opset(text: str) -> int:
    known = range(OPSET, NEWEST_OPSET + 1)
    if text != "newest" and (not text.isdecimal() or int(text) not in known):
        raise typer.BadParameter(
            f"{text!r}; say a number from {known[0]} to {known[-1]}, or newest", param_hint="--onnx-opset"
        )
    return NEWEST_OPSET if text == "newest" else int(text)


def show_consumers(exported: "Exported", as_json: bool) -> None:
    """Print which programs run a package."""
    from im2im_zoo.package import open_package
    from im2im_zoo.packaging.consumers.programs import consumer_table

    with open_package(exported.folder) as package:
        table = consumer_table(package)
    if as_json:
        zipped = None if exported.zip_path is None else str(exported.zip_path)
        print_json(
            {
                "package": str(exported.folder),
                "zip": zipped,
                "warnings": list(exported.warnings),
                "consumers": [v.plain() for v in table],
            }
        )
    else:
        print_consumers(table)


class _Options(TypedDict, total=False):
    """Arguments of `export_package` for a portable model."""

    trained_with: "Recipe"
    portable: Mapping[str, object]


def export_run(
    trained: "TrainingRun",
    output: Path,
    zip_file: Path | None = None,
    weights: Sequence[str] | None = None,
    checkpoint: Literal["best", "last"] = "best",
    overwrite: bool = False,
    allow_code: Sequence[str] = (),
    portable: bool = False,
    opset: int = OPSET,
) -> "Exported":
    """Measure a trained network on the validation images of its run and write the package."""
    from im2im_zoo.data import open_validation_pairs
    from im2im_zoo.packaging import export_package, network_grid
    from im2im_zoo.training.run import load_framework

    recipe = trained.recipe
    framework = load_framework(trained, checkpoint, allow_code)
    network = framework.exported_network().eval()
    samples = open_validation_pairs(recipe)
    formats = tuple(weights or FORMATS)
    grid = network_grid(network, recipe, samples, formats)
    code = OwnCode(trained.path, "custom" in allow_code, allow_code)
    measurable = [sample for sample in samples if sample.measurable]
    if measurable:
        say(f"Measuring on {len(measurable)} held-out image(s)")
    else:
        say("note: nothing is measured: of no held-out image is it known what the result should be")
    figures, baselines = _measured(network, recipe, measurable, grid, code)
    options = _Options()
    if portable:
        made, loss = _made_portable(network, recipe, samples, grid, figures, code)
        if made.fixed:
            options = {"trained_with": recipe, "portable": made.record(loss)}
            network, recipe, figures = made.network, made.recipe, loss.portable
        else:
            say(
                "note: there is nothing to make portable: the recipe has no custom operation before the network"
            )
    say(f"Exporting to {output}")
    exported = export_package(
        network,
        recipe,
        samples,
        output,
        figures=figures,
        baselines=baselines,
        weights=formats,
        architecture=framework.exported_architecture(recipe.network),
        provenance=dict(trained.provenance),
        zip_path=zip_file,
        overwrite=overwrite,
        root=code.root,
        allow_code=code.allow_code,
        trusted=allow_code,
        grid=grid,
        opset=opset,
        **options,
    )
    _say_warnings(exported.warnings, trained.path / "recipe.yaml")
    say(f"Done: {output}" + (f" and {zip_file}" if zip_file else ""))
    return exported


def _say_warnings(warnings: Sequence[str], recipe: Path) -> None:
    """What a person should see to; what only a person knows as one list, with the rule of each field."""
    missing = [line for line in warnings if line.startswith("package.")]
    for warning in warnings:
        if warning not in missing:
            say(f"note: {warning}")
    if missing:
        say(f"What only a person knows; write it into {recipe} and export again:")
    for line in missing:
        say(f"  - {line}")


def _measured(
    network: "nn.Module", recipe: "Recipe", samples: "Sequence[ImagePair]", grid: "Grid", code: OwnCode
) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The figures of a network and, each named with its method, those of trivial ones; none without samples."""
    if not samples:
        return {}, {}
    baselines = {
        f"{name} {figure}": value
        for name, evaluation in baseline_evaluations(recipe, samples, code).items()
        for figure, value in evaluation.figures.items()
    }
    return held_out_evaluation(network, recipe, samples, grid, code).figures, baselines


def _made_portable(
    network: "nn.Module",
    recipe: "Recipe",
    samples: "Sequence[ImagePair]",
    grid: "Grid",
    figures: Mapping[str, float],
    code: OwnCode,
) -> "tuple[Portable, PortableLoss]":
    """The portable model, if it is good enough on the held-out images.

    Raises:
        PackageError: it is not, or it cannot be made.
    """
    from im2im_zoo.data import find_pairs
    from im2im_zoo.data.pairing.image_pair import open_side_image
    from im2im_zoo.packaging import PortableLoss, make_portable

    pairs = find_pairs(recipe.data, recipe.seed)
    images = [open_side_image(path, recipe, "input") for path in pairs.inputs]
    images += [open_side_image(pair.input, recipe, "input", pair.time, pair.more) for pair in pairs.train]
    made = make_portable(network, recipe, images)
    if not made.fixed:
        return made, PortableLoss(figures, figures, 0.0)
    for sentence in made.fixed:
        say(f"Fixed: {sentence}")
    say("Measuring what that costs on the held-out image(s)")
    # What is put in front of the network works on single voxels: it changes none of the sizes.
    measurable = [sample for sample in samples if sample.measurable]
    after, _ = _measured(made.network, made.recipe, measurable, grid, code)
    difference = prediction_difference((network, recipe), (made.network, made.recipe), samples, grid)
    loss = PortableLoss(figures, after, difference)
    say(f"Predictions differ by {difference:.2g} of their standard deviation")
    loss.check()
    return made, loss
