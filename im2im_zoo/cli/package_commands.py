"""Commands on finished packages, and their options; `app` registers them. Each imports its modules when it is called."""

from pathlib import Path
from typing import Annotated, cast

import typer

from im2im_zoo.cli.metadata_options import (
    Authors,
    Citations,
    Description,
    GitRepository,
    License,
    Maintainers,
    Tags,
    TrainingData,
)
from im2im_zoo.cli.options import Json, OnnxRuntime, Overwrite, Weights


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Package.")],
    image: Annotated[str, typer.Option("--image", metavar="IMAGE", help="Image to predict with both.")],
    b: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Other package; default: A with its second --weights.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Axes of the image, if the file does not name them.")
    ] = None,
    weights: Weights = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Absolute difference that is allowed; default: the tolerance that A declares."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="4GB", help="Memory of the predictions; default: half of what is available."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Also draw A, B and their difference."),
    ] = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Run the Python code that came with the packages.")
    ] = False,
    json: Json = False,
) -> None:
    """Predict an image with two packages, or two weight formats of one, and compare the results."""
    from im2im_zoo.cli.compare import run

    run(
        a,
        b,
        image,
        axes=axes,
        weights=weights or [],
        tolerance=tolerance,
        memory=memory,
        picture=picture,
        allow_code=allow_code,
        as_json=json,
    )


def edit(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder, zip or rdf.yaml of a package.")],
    name: Annotated[str | None, typer.Option("--name", "--rename", help="New name.")] = None,
    description: Description = None,
    license: License = None,
    author: Authors = None,
    maintainer: Maintainers = None,
    cite: Citations = None,
    tag: Tags = None,
    git_repo: GitRepository = None,
    training_data: TrainingData = None,
    documentation: Annotated[
        Path | None, typer.Option("--documentation", metavar="FILE.md", help="Replace the README.")
    ] = None,
    cover: Annotated[
        str | None,
        typer.Option(
            "--cover",
            metavar="FILE",
            help="Replace the cover, also by a picture of the package; fitted to bioimage.io's limits.",
        ),
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="V", help="New version, e.g. 1.0.0.")
    ] = None,
    bump: Annotated[
        str | None,
        typer.Option("--bump", metavar="major|minor|patch", help="Raise this part of the version by one."),
    ] = None,
    change: Annotated[
        str | None,
        typer.Option(
            "--change", metavar="TEXT", help="Add a line to `## Changes` of the README, for the new version."
        ),
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="New id. bioimage.io assigns one and refuses others.")
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            "--remove", metavar="FIELD", help="Remove a field first, e.g. id or authors; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write to this folder or .zip instead of in place."
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Change the metadata of a package without training it again. The result is validated; on an error the original stays."""
    from im2im_zoo.cli.edit import check_bump, run
    from im2im_zoo.packaging.editing.changes import Changes, Part

    check_bump(bump, version)
    changes = Changes(
        name=name,
        description=description,
        license=license,
        git_repo=git_repo,
        version=version,
        id=id,
        training_data=training_data,
        authors=tuple(author or ()),
        maintainers=tuple(maintainer or ()),
        cite=tuple(cite or ()),
        tags=tuple(tag or ()),
        remove=tuple(remove or ()),
        bump=cast(Part | None, bump),
        change=change,
        documentation=documentation,
        cover=cover,
    )
    run(package, changes, output, overwrite, json)


def add_weights(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder, zip or rdf.yaml of a package.")],
    weights_format: Annotated[
        str, typer.Option("--format", metavar="onnx|torchscript", help="Weight format to add.")
    ],
    onnx_opset: Annotated[
        str,
        typer.Option(
            "--onnx-opset",
            metavar="N",
            help="Opset of the ONNX file, or `newest`; older runtimes read up to 17.",
        ),
    ] = "17",
    allow_code: Annotated[
        bool,
        typer.Option("--allow-code", help="Run the Python code that builds the network of the state dict."),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write to this folder or .zip instead of in place."
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Add ONNX or TorchScript weights, made from the state dict of a package and checked against it."""
    from im2im_zoo.cli.add_weights import run

    run(package, weights_format, onnx_opset, allow_code, output, overwrite, json)


def upgrade(
    package: Annotated[str, typer.Argument(metavar="PACKAGE", help="Folder, zip or rdf.yaml of a package.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write to this folder or .zip instead of in place."
        ),
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a package of format 0.4 or 0.5 in the newest format. It must be read as before; on an error the original stays."""
    from im2im_zoo.cli.upgrade import run

    run(package, output, overwrite, json)


def publish(
    package: Annotated[
        str, typer.Argument(metavar="PACKAGE", help="Folder, zip, rdf.yaml or name of a package.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="bioimage.io|huggingface", help="Server to publish on.")],
    repository: Annotated[
        str,
        typer.Option("--repository", metavar="OWNER/NAME", help="Repository on the Hugging Face Hub."),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Send nothing: list files, fields, and what would be refused. Works offline."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without asking, for scripts.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin a new draft, whatever was sent before.")
    ] = False,
    json: Json = False,
) -> None:
    """Publish a package on bioimage.io (as a draft for review) or the Hugging Face Hub. Resumable: run the same command again.

    The token comes from the environment: BIOIMAGEIO_HYPHA_UPLOAD_TOKEN (https://bioimage.io/#/api?tab=hypha-rpc), or HF_TOKEN
    (https://huggingface.co/settings/tokens).
    """
    from im2im_zoo.cli.publish import run

    run(package, to, repository, dry_run=dry_run, yes=yes, restart=restart, as_json=json)


def try_page(
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE",
            help="Package: folder, zip, rdf.yaml, name of a packaged model, https address or bioimage.io/NAME.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.html", help="Page to write.")
    ] = Path("try.html"),
    onnxruntime: OnnxRuntime = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write one HTML page that runs a package in the browser: no installation, no server; images stay on the computer."""
    from im2im_zoo.cli.browser import write

    write(package, output, onnxruntime, overwrite, json)


def serve(
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE",
            help="Package: folder, zip, rdf.yaml, name of a packaged model, https address or bioimage.io/NAME.",
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for a free one.")
    ] = 8000,
    onnxruntime: OnnxRuntime = None,
) -> None:
    """Serve the page of `try` to this machine only: faster, as the browser may use several threads; also for larger models."""
    from im2im_zoo.cli.browser import serve as serve_page

    serve_page(package, port, onnxruntime)
