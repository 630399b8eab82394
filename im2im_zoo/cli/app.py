"""The commands and their options; each imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="im2im-zoo",
    help="From microscopy image pairs to a deep-learning model that runs anywhere.",
    epilog="Any command takes --debug, which shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AllowCode = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-code",
        metavar="PACKAGE",
        help="Python package, or module beside the recipe, whose code the recipe may import and run; "
        "`custom`: the sources of its custom operations.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights", metavar="FORMAT", help="onnx, torchscript or pytorch_state_dict; may be repeated."
    ),
]


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """From microscopy image pairs to a deep-learning model that runs anywhere."""
    if version:
        from importlib.metadata import version as installed

        print(f"im2im-zoo {installed('im2im_zoo')}")
        raise typer.Exit


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    ctx: typer.Context,
    recipe: Annotated[
        str, typer.Argument(help="Path of a recipe, or the name of one: `im2im-zoo recipe --list`.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="RUN", help="Folder to make for the run.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last whole epoch.")] = False,
    find_rate: Annotated[
        bool, typer.Option("--find-lr", help="Try learning rates instead of training, and suggest one.")
    ] = False,
    allow_code: AllowCode = None,
) -> None:
    """Train a recipe. Any key of it is overridden by --dotted.key=value, e.g. --trainer.max_epochs=3."""
    from im2im_zoo.cli.train import find_rate as find
    from im2im_zoo.cli.train import run

    if find_rate:
        find(recipe, ctx.args, allow_code or [])
    elif output is None:
        raise typer.BadParameter("say --output RUN: the folder to make for the run")
    else:
        run(recipe, ctx.args, output, resume, allow_code or [])


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder made by `train`.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder to make for the package.")
    ],
    zip_file: Annotated[
        Path | None,
        typer.Option("--zip", metavar="FILE", help="Also write the package as one zip file."),
    ] = None,
    weights: Weights = None,
    checkpoint: Annotated[str, typer.Option(metavar="best|last", help="Checkpoint to export.")] = "best",
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="For programs without custom operations: fix what they measure of each image, or put it into the network.",
        ),
    ] = False,
    onnx_opset: Annotated[
        str,
        typer.Option(
            "--onnx-opset",
            metavar="17..23|newest",
            help="Of the ONNX weights; beyond 17, old runtimes cannot.",
        ),
    ] = "17",
    overwrite: Overwrite = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> None:
    """Wrap a trained run as a bioimage.io package, and say which programs run it."""
    from im2im_zoo.cli.export import run as export_run

    code = allow_code or []
    export_run(run, output, zip_file, weights, checkpoint, overwrite, code, portable, onnx_opset, json)


@app.command()
def validate(
    package: Annotated[
        str,
        typer.Argument(
            help="Package: folder, zip or rdf.yaml, name of a packaged model, https address or bioimage.io/NAME."
        ),
    ],
    weights: Weights = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Let the package's Python code run (pytorch_state_dict, custom ops, a grouping that is not ours).",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write one self-contained page, with pictures."),
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Ask the network whether the links of the RDF lead anywhere.")
    ] = False,
    core: Annotated[
        bool, typer.Option("--core/--no-core", help="Ask bioimageio.core, too, and say where it disagrees.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings, too.")] = False,
    json: Json = False,
) -> None:
    """Check a package: files, safety, format, metadata, and what its weights give. Exit 0: sound, 1: not, 2: wrong usage.

    Each finding has a code, which docs/validate.md explains.
    """
    from im2im_zoo.cli.validate import run

    run(
        package,
        weights,
        allow_code,
        as_json=json,
        html=html,
        links=links,
        core=core,
        strict=strict,
    )


@app.command()
def predict(
    package: Annotated[
        str,
        typer.Argument(
            help="Package: folder, zip or rdf.yaml, name of a packaged model, https address or bioimage.io/NAME."
        ),
    ],
    image: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="OME-Zarr (also its https address), (OME-)TIFF, PNG or .npy image."
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="OME-Zarr (.zarr) or TIFF (.tif) to write.")
    ],
    axes: Annotated[
        list[str] | None,
        typer.Option(
            help="Axes of the input as letters, e.g. zyx, if the file does not say; NAME=zyx for another input."
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            help="Channels to use, by name or index, separated by commas; NAME=0,1 for another input."
        ),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="NAME=PATH", help="Image of a further input of the model."),
    ] = None,
    join: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="A further file of the same place, whose channels follow those of INPUT; once for each.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output", metavar="NAME=PATH", help="Where to write a further output; default: beside OUTPUT."
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Memory to stay below, e.g. 4GB; default: half of what is free."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that run tiles.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Threads of the network, in each process.")] = None,
    halo: Annotated[
        str,
        typer.Option(
            metavar="auto|exact|declared|N",
            help="Voxels that tiles overlap on each side. auto: what the package's own tolerance needs, measured on its test "
            "image; exact: as far as the network reaches.",
        ),
    ] = "auto",
    tile: Annotated[
        str | None,
        typer.Option(metavar="N|y=N,x=N", help="Voxels of a tile, halo included; default: what costs least."),
    ] = None,
    blend: Annotated[
        bool | None,
        typer.Option(
            "--blend/--no-blend",
            help="Average overlapping tiles; default: only if nothing makes tiles exact.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FORMAT",
            help="onnx, torchscript, pytorch_state_dict, ...; default: the fastest.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="onnxruntime, openvino or torch; default: the fastest that is installed."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    rescale: Annotated[
        bool, typer.Option("--rescale", help="Resample to the model's pixel size, and the result back.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Type of the output, of labels if there are any; default: the model's.")
    ] = None,
    grouping: Annotated[
        bool,
        typer.Option(
            "--grouping/--no-grouping",
            help="Make instance labels of the maps of a package that says how, or stop at the maps.",
        ),
    ] = True,
    objects: Annotated[
        list[Path] | None,
        typer.Option(
            "--objects",
            metavar="FILE",
            help="Also write the labels' objects: a table (.csv, .parquet) or outlines (.geojson); may be repeated.",
        ),
    ] = None,
    ome_zarr: Annotated[
        str | None, typer.Option("--ome-zarr", metavar="0.4|0.5", help="Version of OME-Zarr to write.")
    ] = None,
    shards: Annotated[
        bool | None,
        typer.Option(
            "--shards/--no-shards", help="Store chunks in shards; default: if there would be very many."
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    overwrite: Overwrite = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start an unfinished prediction over instead of going on with it."),
    ] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let the package's Python code run.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a package on an image of any size, tile by tile. Stopped, the same command goes on where it was.

    Instance labels, of a package that groups its maps, are put into an OME-Zarr OUTPUT as labels/instances; any other OUTPUT
    is the label image.
    """
    from im2im_zoo.cli.predict import Options, run

    options = Options(
        axes or [],
        channels or [],
        inputs or [],
        join or [],
        outputs or [],
        memory,
        workers,
        threads,
        halo,
        tile,
        blend,
        weights,
        backend,
        precision,
        device,
        dtype,
        rescale,
        ome_zarr,
        shards,
        allow_code,
        grouping,
        objects or [],
    )
    run(
        package,
        image,
        output,
        options,
        plan_only=plan,
        overwrite=overwrite,
        restart=restart,
        as_json=json,
    )


@app.command()
def evaluate(
    prediction: Annotated[str, typer.Argument(help="Predicted image, or a folder of them.")],
    target: Annotated[str, typer.Argument(help="Image of the truth, or a folder of them.")],
    task: Annotated[str, typer.Option(metavar="regression|semantic|instance", help="What is compared.")],
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of the prediction, if the file does not say."),
    ] = None,
    target_axes: Annotated[
        str | None,
        typer.Option(help="Axes of the target, if the file does not say."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Foreground is above it, for semantic predictions.")] = 0.5,
    data_range: Annotated[
        float | None,
        typer.Option(help="Data range of PSNR and SSIM; default: maximum - minimum of the target."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="Also write a page with pictures of the objects: matched, missed, split, merged.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="What the labels are of, to be shown in the report.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare a prediction with the truth; of two folders, the images of the same names, each and pooled."""
    from im2im_zoo.cli.evaluate import run

    run(prediction, target, task, axes, target_axes, threshold, data_range, report, image, json)


@app.command()
def objects(
    labels: Annotated[
        str, typer.Argument(help="Label image, or an OME-Zarr that `predict` has put labels into.")
    ],
    outputs: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Table (.csv, .parquet) or outlines (.geojson) to write."),
    ],
    image: Annotated[
        str | None, typer.Option("--image", help="What the labels are of, for mean intensities.")
    ] = None,
    axes: Annotated[str | None, typer.Option(help="Axes of the labels, if the file does not say.")] = None,
    image_axes: Annotated[
        str | None, typer.Option(help="Axes of the image, if the file does not say.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the objects of a label image of any size: positions, sizes, mean intensities, outlines."""
    from im2im_zoo.cli.objects import run

    run(labels, outputs, image, axes, image_axes, overwrite)


@app.command()
def show(
    source: Annotated[str, typer.Argument(metavar="PACKAGE|RUN|RECIPE", help="What to describe.")],
    json: Json = False,
) -> None:
    """Describe a package, a run or a recipe."""
    from im2im_zoo.cli.show import run

    run(source, json)


@app.command()
def recipe(
    list_: Annotated[bool, typer.Option("--list", help="List the recipes that come with im2im_zoo.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a recipe.")] = False,
    copy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Write the recipe of that name here, to start one's own from."),
    ] = None,
) -> None:
    """List the recipes, print their JSON Schema, or copy one."""
    from im2im_zoo.cli.recipe import run

    run(list_, schema, copy)


@app.command()
def samples(
    name: Annotated[str | None, typer.Argument(help="Name of a recipe; none: list them.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FOLDER", help="Folder to make for the images; default: NAME_images."
        ),
    ] = None,
) -> None:
    """Write real sample images for a recipe, split into train/ and val/."""
    from im2im_zoo.cli.samples import run

    run(name, output)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Folder to make.")] = Path(
        "im2im-zoo-demo"
    ),
    overwrite: Overwrite = False,
) -> None:
    """The whole way on real microscopy, in minutes on a CPU: train, export, validate, predict, evaluate, report."""
    from im2im_zoo.cli.demo import run

    run(output, overwrite)


data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at images before training on them."
)
app.add_typer(data_app, name="data")


@data_app.command("check", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data_check(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|DATA", help="A recipe or its name; or a folder or table of images."),
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write one page with thumbnails.")
    ] = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read what files say of themselves, and no voxels: fast.")
    ] = False,
    json: Json = False,
) -> None:
    """Find what will go wrong: axes, sizes, copies, leakage over the split, empty targets, saturated images. Exit 0: no error.

    Any key of a recipe is overridden by --dotted.key=value, e.g. --data.path=FOLDER.
    """
    from im2im_zoo.cli.data import check

    check(source, ctx.args, html, json, headers)
