"""The demo: train, export, validate, predict and evaluate on real microscopy, as the commands do."""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import DataError
from im2im_zoo.evaluation import (
    Evaluation,
    Panel,
    Report,
    Sample,
    curve_from_rows,
    evaluate,
    headlines,
    otsu_mask,
    write_report,
)
from im2im_zoo.images import open_image, write_image
from im2im_zoo.instances.grouping import INSTANCES
from im2im_zoo.instances.thresholding import Thresholding
from im2im_zoo.objects import write_objects
from im2im_zoo.packaging import ValidationReport, validate_package
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime import Settings, open_package_model
from im2im_zoo.samples import write_samples
from im2im_zoo.training.run import TrainingRun
from im2im_zoo.training.train import train
from im2im_zoo.workflows.export_run import export_run

RECIPE = "nuclei_2d"
# Small tiles, to demonstrate that they leave no artefacts; a laptop could take the whole image at once.
TILE = 256
_MARK = ".im2im-zoo-demo"


# Nuclei are what is above one half of the probability, and at least 20 pixels large.
NUCLEI = Thresholding(0.5, split_touching=True, fill_holes=True, min_size=20)


def _predict(package: Path, image: Path, output: Path, tile: Mapping[str, int]) -> None:
    with open_package_model(package) as model:
        model.predict(image, output, settings=Settings(tile=tile, thresholding=NUCLEI))


@dataclass(frozen=True)
class DemoSteps:
    """Functions that do or show the steps; by default without progress.

    Attributes:
        report: called with each message for the user.
        train: function that trains a recipe into a folder.
        predict: function that runs a package on an image, into a file with maps and labels (`NUCLEI`), with tiles of a size.
        show_validation: called with the report of the validation.
    """

    report: Callable[[str], None] = lambda message: None
    train: Callable[[Recipe, Path], TrainingRun] = train
    predict: Callable[[Path, Path, Path, Mapping[str, int]], object] = _predict
    show_validation: Callable[[ValidationReport], None] = lambda report: None


@dataclass(frozen=True)
class Demo:
    """Files that the demo wrote, `evaluations` of the model and of Otsu's threshold, and numbers of nuclei: found, and in the labels."""

    package: Path
    prediction: Path
    table: Path
    page: Path
    evaluations: Mapping[str, Evaluation]
    nuclei: int
    labelled: int


def run_demo(output: Path, *, overwrite: bool = False, steps: DemoSteps | None = None) -> Demo:
    """Train, export, validate, predict, evaluate, and write a report.

    Args:
        output: folder to create.
        overwrite: replace the folder of an earlier demo.
        steps: functions that do and show the steps.

    Raises:
        DataError: `output` exists and is not the folder of a demo, or `overwrite` is False.
    """
    steps = steps or DemoSteps()
    _create_folder(output, overwrite)
    started = time.perf_counter()
    steps.report(f"1/6  Real images: nuclei and their labels, one part held out -> {output / 'images'}")
    images = write_samples(RECIPE, output / "images")
    steps.report(f"2/6  Train recipe {RECIPE!r} -> {output / 'run'}")
    trained = steps.train(load_recipe(RECIPE, [("data.path", str(images))]), output / "run")
    training = time.perf_counter() - started
    steps.report(f"3/6  Export as a bioimage.io package -> {output / 'package'}")
    package = export_run(trained, output / "package", report=steps.report).folder
    steps.report("4/6  Validate it in every weight format")
    # Its Python code was exported by this process.
    report = validate_package(package, allow_code=True)
    steps.show_validation(report)
    prediction = output / "prediction.ome.zarr"
    steps.report(f"5/6  Predict the held-out image, as OME-Zarr, tile by tile -> {prediction}")
    image = write_image(_held_out(images, "images"), output / "held_out.ome.zarr")
    steps.predict(package, image, prediction, {"y": TILE, "x": TILE})
    steps.report("6/6  Measure the nuclei, and evaluate against the labels, beside Otsu's threshold")
    table = output / "nuclei.csv"
    nuclei = write_objects(open_image(prediction / "labels" / INSTANCES), table, open_image(image))
    labelled = int(np.count_nonzero(np.unique(_held_out(images, "targets"))))
    evaluations = _evaluate(prediction, images)
    difference = _difference_to_whole(package, images, prediction)
    facts = {
        "images": "fluorescence nuclei of the stardist wheel (BSD-3-Clause)",
        "recipe": RECIPE,
        "package": f"{report.verdict} in ONNX, TorchScript and state dict",
        "tiles": f"{TILE} voxels; at most {difference:.1g} from the prediction of the whole image at once",
        "nuclei": f"{nuclei} found by the threshold 0.5, {labelled} in the labels",
        "training": f"{training:.0f} s",
        "everything": f"{time.perf_counter() - started:.0f} s",
    }
    page = _report(output, images, prediction, evaluations, trained, facts)
    return Demo(package, prediction, table, page, evaluations, nuclei, labelled)


def _create_folder(output: Path, overwrite: bool) -> None:
    if output.exists():
        if not overwrite:
            raise DataError(f"{output} already exists; add --overwrite, or choose another --output")
        if not (output / _MARK).is_file():
            raise DataError(
                f"{output} was not created by the demo and is not replaced; choose another --output"
            )
        shutil.rmtree(output)
    output.mkdir(parents=True)
    (output / _MARK).touch()


def _held_out(images: Path, kind: str) -> xr.DataArray:
    return open_image(next((images / "val" / kind).iterdir()))


def _difference_to_whole(package: Path, images: Path, prediction: Path) -> float:
    """Return the largest difference between the tiled prediction and the prediction of the whole image at once."""
    with open_package_model(package) as model:
        whole = model.predict_array(_held_out(images, "images"), whole=True)
    return float(np.abs(whole.squeeze().to_numpy() - open_image(prediction).squeeze().to_numpy()).max())


def _evaluate(prediction: Path, images: Path) -> dict[str, Evaluation]:
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
    evaluations: Mapping[str, Evaluation],
    trained: TrainingRun,
    facts: Mapping[str, str],
) -> Path:
    image, target = _held_out(images, "images"), _held_out(images, "targets")
    predicted = open_image(prediction).squeeze()
    panels = (
        Panel("input", image),
        Panel("target", target > 0, kind="mask"),
        Panel("prediction", predicted, contrast=(0, 1), caption="probability of nucleus"),
        Panel("difference", predicted > 0.5, kind="overlap", target=target > 0),
    )
    losses = {"train_loss": "training", "val_loss": "validation"}
    report = Report(
        title="Nuclei in 2D fluorescence",
        summary="A network trained on one part of an image, applied to the other part, which was not used in training.",
        headlines=headlines(evaluations, ("dice", "iou", "precision", "recall")),
        samples=(Sample("Held-out image", panels),),
        curves=(
            curve_from_rows(trained.metrics, losses),
            curve_from_rows(trained.metrics, {"val_dice": "validation"}, title="Dice", y_label="Dice"),
        ),
        evaluations=evaluations,
        facts={"Demo": facts},
        links={name: name for name in ("package", "prediction.ome.zarr", "nuclei.csv", "run", "images")},
    )
    return write_report(output / "report.html", report)
