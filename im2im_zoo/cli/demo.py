"""`im2im-zoo demo`."""

from collections.abc import Mapping
from pathlib import Path

from im2im_zoo.cli.console import print_line, print_text
from im2im_zoo.cli.predict import predict_with_progress
from im2im_zoo.cli.train import train_with_progress
from im2im_zoo.cli.validate import show_report


def run(output: Path, overwrite: bool) -> None:
    """Train, export, validate, predict, evaluate, write a report, and print the paths of the files."""
    from im2im_zoo.runtime import Settings, open_package_model
    from im2im_zoo.workflows.demo import NUCLEI, DemoSteps, run_demo

    def predict(package: Path, image: Path, result: Path, tile: Mapping[str, int]) -> None:
        with open_package_model(package) as model:
            predict_with_progress(model, image, result, settings=Settings(tile=tile, thresholding=NUCLEI))

    steps = DemoSteps(
        report=print_line,
        train=lambda recipe, folder: train_with_progress(recipe, folder, resume=False, allow_code=()),
        predict=predict,
        show_validation=show_report,
    )
    done = run_demo(output, overwrite=overwrite, steps=steps)
    ours, otsu = (done.evaluations[k].metrics["dice"] for k in ("model", "Otsu"))
    print_text(
        f"\nDice on the held-out image: {ours:.3f} (Otsu's threshold: {otsu:.3f})\n"
        f"Nuclei: {done.nuclei} found, {done.labelled} in the labels\n\n"
        f"package     {done.package}\nprediction  {done.prediction}\nnuclei      {done.table}\nreport      {done.page}"
    )
