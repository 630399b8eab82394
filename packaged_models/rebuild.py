"""Train, export and validate again what this folder holds, each from the recipe of its name.

    make packaged_models

The images come from a PyPI wheel; training takes minutes on a CPU. A package below 2.5 MB is kept in git, so its state dict is left
out: ONNX and TorchScript are what runs it everywhere.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from im2im_zoo.cli.console import print_line
from im2im_zoo.cli.train import train_with_progress
from im2im_zoo.evaluation.panels import Panel, Rendered, render_panel, scale_bar
from im2im_zoo.images import open_image
from im2im_zoo.package import open_package
from im2im_zoo.packaging import validate_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime import predict_array
from im2im_zoo.samples import write_samples
from im2im_zoo.workflows.export_run import export_run

MODELS = ("nuclei_2d",)
LARGEST = 2_500_000
# Of the picture for the README, in pixels.
HEIGHT, GAP, HEAD, DPI = 384, 10, 30, 100


def rebuild(name: str, models: Path) -> None:
    """Make `models/<name>/<version>` anew."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = write_samples(name, work / name)
        recipe = load_recipe(name, [("data.path", str(images))])
        print_line(f"Training {name}")
        run = train_with_progress(recipe, work / "run", resume=False, allow_code=())
        output = models / name / recipe.package.version
        export_run(
            run, output, weights=("onnx", "torchscript"), overwrite=True, try_page=False, report=print_line
        )
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
    image, target, prediction = image.isel(part), target.isel(part), prediction.squeeze().isel(part)
    panels = (
        Panel("input", image, view="middle"),
        Panel("target", target, kind="mask"),
        Panel("prediction", prediction, contrast=(0, 1), view="middle"),
        Panel("difference", prediction, kind="overlap", target=target),
    )
    write_row([render_panel(panel, longest=2 * HEIGHT) for panel in panels], picture)


def write_row(panels: Sequence[Rendered], picture: Path) -> None:
    """Write panels in one row as a PNG, with their titles, and a scale bar in the first."""
    ratios = [panel.rgb.shape[1] / panel.rgb.shape[0] for panel in panels]
    total, height = sum(ratios) * HEIGHT + GAP * (len(panels) - 1), HEIGHT + HEAD
    figure = Figure(figsize=(round(total) / DPI, height / DPI), dpi=DPI, facecolor="white")
    at = 0.0
    for number, (panel, ratio) in enumerate(zip(panels, ratios, strict=True)):
        axes = figure.add_axes((at / total, 0, ratio * HEIGHT / total, HEIGHT / height))
        axes.imshow(panel.rgb, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        middle = (at + ratio * HEIGHT / 2) / total
        figure.text(middle, 1 - HEAD / 2 / height, panel.title, ha="center", va="center", fontsize=11)
        if number == 0:
            draw_bar(axes, panel)
        at += ratio * HEIGHT + GAP
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})  # type: ignore[no-untyped-call]


def draw_bar(axes: Axes, panel: Rendered) -> None:
    """Draw a scale bar into the lower right corner."""
    bar, right, bottom = scale_bar(panel), 0.96, 0.05
    axes.plot(
        [right - bar.fraction, right],
        [bottom, bottom],
        transform=axes.transAxes,
        color="white",
        lw=3,
        solid_capstyle="butt",
        path_effects=[withStroke(linewidth=5, foreground="black")],
    )
    axes.text(
        right - bar.fraction / 2,
        bottom + 0.02,
        bar.text,
        transform=axes.transAxes,
        color="white",
        ha="center",
        va="bottom",
        fontsize=9,
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )


if __name__ == "__main__":
    for model in MODELS:
        rebuild(model, Path(__file__).resolve().parent)
