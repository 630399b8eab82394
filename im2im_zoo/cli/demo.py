"""`im2im-zoo demo`."""

from pathlib import Path

from im2im_zoo.cli.console import results, say
from im2im_zoo.cli.predict import predict_with_progress
from im2im_zoo.cli.train import train_with_progress
from im2im_zoo.cli.validate import show_report


def run(output: Path, overwrite: bool) -> None:
    """Train, export, validate, predict, evaluate, and write a report; name the files."""
    from im2im_zoo.workflows.demo import DemoSteps, run_demo

    steps = DemoSteps(
        report=say,
        train=lambda recipe, folder: train_with_progress(recipe, folder, resume=False, allow_code=()),
        predict=lambda package, image, result, tile: predict_with_progress(package, image, result, tile=tile),
        show_validation=show_report,
    )
    done = run_demo(output, overwrite=overwrite, steps=steps)
    ours, otsu = (done.evaluations[k].figures["dice"] for k in ("model", "Otsu"))
    results.print(
        f"\nDice on the held-out image: {ours:.3f} (Otsu's threshold: {otsu:.3f})\n\n"
        f"package     {done.package}\nprediction  {done.prediction}\nreport      {done.page}",
        markup=False,
    )
