"""`im2im-zoo new` and its options; `app` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from im2im_zoo.cli.metadata_options import Authors, License
from im2im_zoo.cli.options import Json, Overwrite


def new(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Folder of images, with targets or without; or a CSV table."),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="segment|objects|restore|denoise|predict-stain",
            help="Task to learn; default: asked on a terminal.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.yaml", help="Recipe to write; default: FOLDER.yaml."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            "--images",
            metavar="PATTERN",
            help="Paths of the images within FOLDER, e.g. '{name}.png', where {name} is what the files of a pair share; or a "
            "column of the table.",
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets", metavar="PATTERN", help="Paths of the targets, e.g. 'masks/{name}_mask.tif'."
        ),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of the images as letters, e.g. zyx, if the files do not name them."),
    ] = None,
    target_axes: Annotated[
        str | None, typer.Option(help="Axes of the targets, if the files do not name them.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the model.")] = None,
    author: Authors = None,
    license: License = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a recipe for the images of a folder: recognise images and targets, measure them, and choose network and schedule.

    From a folder to counted objects: `new`, `train`, `export`, `predict --objects`.
    """
    from im2im_zoo.cli.new import NewOptions, run

    run(
        folder,
        NewOptions(
            task, output, images, targets, axes, target_axes, name, author or [], license, overwrite, json
        ),
    )
