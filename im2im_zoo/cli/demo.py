"""`im2im-zoo demo`: the whole way, once, on real microscopy. Every step is what the command of its name does."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.cli.console import results, say
from im2im_zoo.core.errors import DataError

if TYPE_CHECKING:
    import xarray as xr

    from im2im_zoo.evaluation import Evaluation
    from im2im_zoo.packaging import ValidationReport
    from im2im_zoo.training.run import TrainingRun

RECIPE = "nuclei_2d"
TILE = 256
_MARK = ".im2im-zoo-demo"


def run(output: Path, overwrite: bool) -> None:
    """Train, export, validate, predict, evaluate, and write a report; name the files."""
    _make_folder(output, overwrite)
    started = time.perf_counter()
    say(f"1/6  Real images: nuclei and their labels, one part held out -> {output / 'images'}")
    images = _samples(output)
    say(f"2/6  Train recipe {RECIPE!r} -> {output / 'run'}")
    trained = _train(images, output)
    training = time.perf_counter() - started
    say(f"3/6  Export as a bioimage.io package -> {output / 'package'}")
    package = _export(trained, output)
    say("4/6  Validate it in every weight format")
    report = _validate(package)
    say(f"5/6  Predict the held-out image, as OME-Zarr, tile by tile -> {output / 'prediction.ome.zarr'}")
    prediction = _predict(package, images, output)
    say("6/6  Evaluate against the labels, beside Otsu's threshold")
    evaluations = _evaluate(output, prediction, images)
    difference = _difference_to_whole(package, images, prediction)
    facts = {
        "Demo": {
            "images": "fluorescence nuclei of the stardist wheel (BSD-3-Clause)",
            "recipe": RECIPE,
            "package": ("sound" if report.sound else "not sound") + " in ONNX, TorchScript and state dict",
            "tiles": f"{TILE} voxels; at most {difference:.1g} from the prediction of the whole image at once",
            "training": f"{training:.0f} s",
            "everything": f"{time.perf_counter() - started:.0f} s",
        }
    }
    page = _report(output, images, prediction, evaluations, trained, facts)
    ours, otsu = (evaluations[k].figures["dice"] for k in ("model", "Otsu"))
    results.print(
        f"\nDice on the held-out image: {ours:.3f} (Otsu's threshold: {otsu:.3f})\n\n"
        f"package     {package}\nprediction  {prediction}\nreport      {page}",
        markup=False,
    )


def _make_folder(output: Path, overwrite: bool) -> None:
    if output.exists():
        if not overwrite:
            raise DataError(f"{output} exists already; say --overwrite, or give another --output")
        if not (output / _MARK).is_file():
            raise DataError(f"{output} was not made by the demo and is not replaced; give another --output")
        shutil.rmtree(output)
    output.mkdir(parents=True)
    (output / _MARK).touch()


def _samples(output: Path) -> Path:
    from im2im_zoo.samples import write_samples

    return write_samples(RECIPE, output / "images")


def _train(images: Path, output: Path) -> "TrainingRun":
    from im2im_zoo.cli.train import train_with_progress
    from im2im_zoo.recipe.load import load_recipe

    recipe = load_recipe(RECIPE, [("data.path", str(images))])
    return train_with_progress(recipe, output / "run", resume=False, allow_code=())


def _export(trained: "TrainingRun", output: Path) -> Path:
    from im2im_zoo.cli.export import export_run

    export_run(trained, output / "package")
    return output / "package"


def _validate(package: Path) -> "ValidationReport":
    from im2im_zoo.cli.validate import show_report
    from im2im_zoo.packaging import validate_package

    # Its Python is what was just exported from here.
    report = validate_package(package, allow_code=True)
    show_report(report)
    return report


def _held_out(images: Path, kind: str) -> "xr.DataArray":
    from im2im_zoo.images import open_image

    return open_image(next((images / "val" / kind).iterdir()))


def _predict(package: Path, images: Path, output: Path) -> Path:
    from im2im_zoo.cli.predict import predict_with_progress
    from im2im_zoo.images import write_image

    image = write_image(_held_out(images, "images"), output / "held_out.ome.zarr")
    # Small tiles, to show that they do not show: a laptop would take the whole image at once.
    predict_with_progress(package, image, output / "prediction.ome.zarr", tile={"y": TILE, "x": TILE})
    return output / "prediction.ome.zarr"


def _difference_to_whole(package: Path, images: Path, prediction: Path) -> float:
    """The largest difference between the tiled prediction and that of the whole image at once."""
    import numpy as np

    from im2im_zoo.images import open_image
    from im2im_zoo.package import open_package
    from im2im_zoo.runtime import predict_array

    with open_package(package) as opened:
        whole = predict_array(opened, _held_out(images, "images"), whole=True)
    return float(np.abs(whole.squeeze().to_numpy() - open_image(prediction).squeeze().to_numpy()).max())


def _evaluate(output: Path, prediction: Path, images: Path) -> "dict[str, Evaluation]":
    from im2im_zoo.evaluation import evaluate, otsu_mask
    from im2im_zoo.images import open_image

    target = _held_out(images, "targets")
    otsu = otsu_mask(_held_out(images, "images"))
    return {
        "model": evaluate(open_image(prediction), target, "semantic"),
        "Otsu": evaluate(otsu, target, "semantic"),
    }


def _report(
    output: Path,
    images: Path,
    prediction: Path,
    evaluations: "Mapping[str, Evaluation]",
    trained: "TrainingRun",
    facts: Mapping[str, Mapping[str, str]],
) -> Path:
    from im2im_zoo.evaluation import (
        Panel,
        Report,
        Sample,
        curve_from_rows,
        headlines,
        write_report,
    )
    from im2im_zoo.images import open_image

    image, target = _held_out(images, "images"), _held_out(images, "targets")
    predicted = open_image(prediction).squeeze()
    panels = (
        Panel("input", image),
        Panel("target", target > 0, kind="mask"),
        Panel("prediction", predicted, contrast=(0, 1), caption="probability of nucleus"),
        Panel("difference", predicted > 0.5, kind="overlap", target=target > 0),
    )
    dice = {"train_loss": "training", "val_loss": "validation"}
    report = Report(
        title="Nuclei in 2D fluorescence",
        summary="A network trained on one part of an image, on the other part: held out, never seen in training.",
        headlines=headlines(evaluations, ("dice", "iou", "precision", "recall")),
        samples=(Sample("Held-out image", panels),),
        curves=(
            curve_from_rows(trained.metrics, dice),
            curve_from_rows(trained.metrics, {"val_dice": "validation"}, title="Dice", y_label="Dice"),
        ),
        evaluations=evaluations,
        facts=facts,
        links={name: name for name in ("package", "prediction.ome.zarr", "run", "images")},
    )
    return write_report(output / "report.html", report)
