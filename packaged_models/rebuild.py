"""Train, export and validate again what this folder holds, each from the recipe of its name.

    make packaged_models

The images come from a PyPI wheel; training takes minutes on a CPU. A package below 2.5 MB is kept in git, so its state dict is left
out: ONNX and TorchScript are what runs it everywhere.
"""

import sys
import tempfile
from pathlib import Path

from im2im_zoo.cli.console import print_line
from im2im_zoo.cli.train import train_with_progress
from im2im_zoo.evaluation import panels_png, segmentation_panels
from im2im_zoo.images import open_image
from im2im_zoo.package import open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime import predict_array
from im2im_zoo.samples import write_samples
from im2im_zoo.workflows.export_run import export_run

MODELS = ("nuclei_2d",)
LARGEST = 2_500_000


def rebuild(name: str, models: Path) -> None:
    """Make `models/<name>/<version>` anew."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = write_samples(name, work / name)
        recipe = load_recipe(name, [("data.path", str(images))])
        print_line(f"Training {name}")
        run = train_with_progress(recipe, work / "run", resume=False, allow_code=())
        output = models / name / recipe.package.version
        export_run(run, output, weights=("onnx", "torchscript"), overwrite=True, report=print_line)
        draw(output, images, models.parent / "docs" / f"{name}.png")
    report = validate_package(output)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    if not report.sound or size > LARGEST:
        sys.exit(f"{output} is not fit to be kept: sound {report.sound}, {size} bytes of at most {LARGEST}")
    print_line(f"{output}: sound, {size} bytes")


def draw(package: Path, images: Path, picture: Path) -> None:
    """Draw the held-out image, its target, the prediction and their difference, for the README."""
    image, target = (open_image(next((images / "val" / kind).iterdir())) for kind in ("images", "targets"))
    with open_package(package) as opened:
        prediction = predict_array(opened, image)
    part = {"y": slice(140, 340)}
    panels = segmentation_panels(image.isel(part), target.isel(part), prediction.squeeze().isel(part))
    panels_png(panels, picture)


if __name__ == "__main__":
    for model in MODELS:
        rebuild(model, Path(__file__).resolve().parent)
