"""Commands and their options. Each command imports its modules when it is called, so that `--help` is fast."""

from pathlib import Path
from typing import Annotated

import typer

from im2im_zoo.cli import new_command, package_commands
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
from im2im_zoo.cli.options import (
    AllowCode,
    ExcludeBorder,
    FillHoles,
    Json,
    MeasureWhat,
    MinSize,
    Neck,
    OfClass,
    Overwrite,
    SplitTouching,
    Threshold,
    Weights,
)

app = typer.Typer(
    name="im2im-zoo",
    help="From microscopy image pairs to a deep-learning model that runs anywhere.",
    epilog="Every command takes --quiet (print results, warnings and errors only), --log-file FILE (append the messages, with their times) and --debug (show the traceback of an error).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def version(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Train deep-learning models on microscopy image pairs, package them, and run them anywhere."""
    if version:
        from importlib.metadata import version as installed

        print(f"im2im-zoo {installed('im2im_zoo')}")
        raise typer.Exit


app.command()(new_command.new)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def train(
    ctx: typer.Context,
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Path or name of a recipe; `im2im-zoo recipe --list` prints the names."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="RUN", help="Folder to create for the run.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last complete epoch.")] = False,
    find_rate: Annotated[
        bool, typer.Option("--find-lr", help="Do not train: try learning rates and suggest one.")
    ] = False,
    allow_code: AllowCode = None,
) -> None:
    """Train a recipe. Override any of its keys by --dotted.key=value, e.g. --trainer.max_epochs=3."""
    from im2im_zoo.cli.train import find_rate as find
    from im2im_zoo.cli.train import run

    if find_rate:
        find(recipe, ctx.args, allow_code or [])
    elif output is None:
        raise typer.BadParameter("--output is missing: add --output RUN, the folder to create for the run")
    else:
        run(recipe, ctx.args, output, resume, allow_code or [])


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, created by `train`.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="FOLDER", help="Folder to create for the package.")
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
            help="Replace custom operations for programs that lack them: fix the values that they measure on each image, or move "
            "them into the network.",
        ),
    ] = False,
    onnx_opset: Annotated[
        str,
        typer.Option(
            "--onnx-opset",
            metavar="17..23|newest",
            help="Opset of the ONNX weights; old runtimes read 17 only.",
        ),
    ] = "17",
    mirrored_test_output: Annotated[
        bool,
        typer.Option(
            "--mirrored-test-output",
            help="Also write the output for the test input mirrored by the halo, as deepImageJ pads it.",
        ),
    ] = False,
    try_page: Annotated[
        Path | None,
        typer.Option(
            "--try-page",
            metavar="FILE.html",
            help="Write try.html, the page that runs the package in a browser, here instead of into FOLDER.",
        ),
    ] = None,
    no_try_page: Annotated[
        bool, typer.Option("--no-try-page", help="Write no page that runs the package in a browser.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the model; default: the recipe's.")
    ] = None,
    description: Description = None,
    license: License = None,
    author: Authors = None,
    maintainer: Maintainers = None,
    cite: Citations = None,
    tag: Tags = None,
    git_repo: GitRepository = None,
    training_data: TrainingData = None,
    overwrite: Overwrite = False,
    allow_code: AllowCode = None,
    json: Json = False,
) -> None:
    """Export a trained run as a bioimage.io package, and list the programs that run it."""
    from im2im_zoo.cli.export import run as export_run
    from im2im_zoo.packaging.editing.changes import Changes

    metadata = Changes(
        name=name,
        description=description,
        license=license,
        git_repo=git_repo,
        training_data=training_data,
        authors=tuple(author or ()),
        maintainers=tuple(maintainer or ()),
        cite=tuple(cite or ()),
        tags=tuple(tag or ()),
    )
    code = allow_code or []
    export_run(
        run,
        output,
        zip_file,
        weights,
        checkpoint,
        overwrite,
        code,
        portable,
        onnx_opset,
        mirrored_test_output,
        try_page,
        no_try_page,
        json,
        metadata,
    )


@app.command()
def validate(
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE",
            help="Package: folder, zip, rdf.yaml, name of a packaged model, https address or bioimage.io/NAME.",
        ),
    ],
    weights: Weights = None,
    allow_code: Annotated[
        bool,
        typer.Option(
            "--allow-code",
            help="Run the package's Python code (pytorch_state_dict, custom operations, its own instance segmentation).",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Also write a self-contained HTML page with pictures."),
    ] = None,
    links: Annotated[
        bool, typer.Option("--links", help="Check online whether the links of the RDF work.")
    ] = False,
    core: Annotated[
        bool, typer.Option("--core/--no-core", help="Also test with bioimageio.core, and report differences.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 for warnings as well.")] = False,
    json: Json = False,
) -> None:
    """Check a package: files, safety, format, metadata and results of its weights.

    Exit 0: sound, 1: not sound, 2: wrong usage, 3: not checked, because none of its weights could be run here.

    docs/validate.md explains the code of each finding.
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
            metavar="PACKAGE",
            help="Package: folder, zip, rdf.yaml, name of a packaged model, https address or bioimage.io/NAME.",
        ),
    ],
    image: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Image: OME-Zarr (path or https address), (OME-)TIFF, PNG or .npy."
        ),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", help="Result to write: OME-Zarr (.zarr) or TIFF (.tif).")
    ],
    axes: Annotated[
        list[str] | None,
        typer.Option(
            help="Axes of the input as letters, e.g. zyx, if the file does not name them; NAME=zyx for a further input."
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            help="Channels to use, by name (red, GFP) or by number counted from 0, separated by commas; `grey` converts a colour image; "
            "NAME=0,1 for a further input."
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
            help="Another file of the same position; its channels are added to those of INPUT; may be repeated.",
        ),
    ] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output",
            metavar="NAME=PATH",
            help="Path of a further output of the model; default: beside OUTPUT.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Limit of the memory, e.g. 4GB; default: half of the free memory."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Number of processes that run tiles.")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads of the network in each process; default: the processors, divided by the workers. With torch, another "
            "number changes the rounding."
        ),
    ] = None,
    halo: Annotated[
        str,
        typer.Option(
            metavar="auto|exact|declared|N",
            help="Voxels that tiles overlap on each side. auto: measured on the package's test image, enough for its tolerance; "
            "exact: the receptive field of the network; declared: the halo that the package declares.",
        ),
    ] = "auto",
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="N|y=N,x=N",
            help="Tile size in voxels, halo included; default: the fastest that fits into memory.",
        ),
    ] = None,
    blend: Annotated[
        bool | None,
        typer.Option(
            "--blend/--no-blend",
            help="Average overlapping tiles; default: only if no halo makes tiles exact.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            metavar="FORMAT",
            help="Weight format: onnx, torchscript, pytorch_state_dict, ...; default: the fastest.",
        ),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Engine: onnxruntime, openvino or torch; default: the fastest that is installed."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Precision of the network: float32, bfloat16 or float16.")
    ] = "float32",
    device: Annotated[
        str, typer.Option(help="Device of the network: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    rescale: Annotated[
        bool,
        typer.Option("--rescale", help="Resample the image to the model's pixel size, and the result back."),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="Data type of the output, or of the labels if there are any; default: the model's."
        ),
    ] = None,
    grouping: Annotated[
        bool,
        typer.Option(
            "--grouping/--no-grouping",
            help="Segment instances from the maps if the package defines how, or write the maps only.",
        ),
    ] = True,
    threshold: Threshold = None,
    of_class: OfClass = None,
    split_touching: SplitTouching = False,
    neck: Neck = None,
    fill_holes: FillHoles = False,
    min_size: MinSize = None,
    objects: Annotated[
        list[Path] | None,
        typer.Option(
            "--objects",
            metavar="FILE",
            help="Also write the objects: a table (.csv, .parquet) or outlines (.geojson); may be repeated.",
        ),
    ] = None,
    measure: MeasureWhat = "basic",
    exclude_border: ExcludeBorder = False,
    ome_zarr: Annotated[
        str | None, typer.Option("--ome-zarr", metavar="0.4|0.5", help="OME-Zarr version to write.")
    ] = None,
    shards: Annotated[
        bool | None,
        typer.Option(
            "--shards/--no-shards",
            help="Store chunks in shards; default: only if there are very many chunks.",
        ),
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")] = False,
    overwrite: Overwrite = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Start an unfinished prediction over instead of resuming it."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Refuse an OME-Zarr of which chunks are missing, instead of a warning."
        ),
    ] = False,
    allow_code: Annotated[bool, typer.Option("--allow-code", help="Run the package's Python code.")] = False,
    json: Json = False,
) -> None:
    """Run a package on an image of any size, tile by tile.

    If it is interrupted, run the same command to resume. Once the output is complete, the same command does nothing.

    Instance labels are written into an OME-Zarr OUTPUT as labels/instances; in any other format OUTPUT is the label image. A package
    that predicts a probability map gives labels with --threshold.
    """
    from im2im_zoo.cli.objects import Table, parse_thresholding
    from im2im_zoo.cli.predict import Inputs, Outputs, parse_halo, parse_memory, run
    from im2im_zoo.runtime.settings import Format, Resources, Settings

    run(
        package,
        Inputs(image, axes or [], channels or [], inputs or [], join or []),
        Outputs(output, outputs or [], objects or [], Table(measure, exclude_border), overwrite),
        Settings(
            halo=parse_halo(halo),
            blend=blend,
            weights=weights,
            backend=backend,
            precision=precision,
            dtype=dtype,
            rescale=rescale,
            format=Format(ome_zarr, shards),
            group=grouping,
            thresholding=parse_thresholding(threshold, of_class, split_touching, neck, fill_holes, min_size),
        ),
        Resources(None if memory is None else parse_memory(memory), workers, threads, device),
        tile=tile,
        allow_code=allow_code,
        plan_only=plan,
        restart=restart,
        strict=strict,
        as_json=json,
    )


app.command()(package_commands.compare)


app.command()(package_commands.edit)


app.command("add-weights")(package_commands.add_weights)


app.command()(package_commands.upgrade)


app.command()(package_commands.publish)


@app.command()
def evaluate(
    prediction: Annotated[
        str, typer.Argument(metavar="PREDICTION", help="Predicted image, or a folder of images.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Target image (ground truth), or a folder of images.")
    ],
    task: Annotated[
        str, typer.Option(metavar="regression|semantic|instance", help="Kind of images to compare.")
    ],
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of the prediction, if the file does not name them."),
    ] = None,
    target_axes: Annotated[
        str | None,
        typer.Option(help="Axes of the target, if the file does not name them."),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Semantic predictions above it are foreground.")] = 0.5,
    data_range: Annotated[
        float | None,
        typer.Option(help="Data range of PSNR and SSIM; default: maximum - minimum of the target."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="Also write an HTML page with pictures of matched, missed, split and merged objects.",
        ),
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Image that was segmented, to show in the report.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare a prediction with its target, or the images of the same names in two folders, one by one and pooled."""
    from im2im_zoo.cli.evaluate import run

    run(prediction, target, task, axes, target_axes, threshold, data_range, report, image, json)


@app.command()
def objects(
    labels: Annotated[
        str,
        typer.Argument(
            metavar="LABELS|MAP",
            help="Label image, or an OME-Zarr with labels from `predict`; with --threshold a map, such as a probability. A folder of "
            "these, or a plate, gives one table.",
        ),
    ],
    outputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Files to write: table (.csv, .parquet) or outlines (.geojson)."
        ),
    ],
    image: Annotated[
        str | None, typer.Option("--image", help="Image that was segmented, for mean intensities.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option(help="Axes of the labels, if the file does not name them.")
    ] = None,
    image_axes: Annotated[
        str | None, typer.Option(help="Axes of the image, if the file does not name them.")
    ] = None,
    threshold: Threshold = None,
    of_class: OfClass = None,
    split_touching: SplitTouching = False,
    neck: Neck = None,
    fill_holes: FillHoles = False,
    min_size: MinSize = None,
    labels_to: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="With --threshold: also write the label image."),
    ] = None,
    measure: MeasureWhat = "basic",
    exclude_border: ExcludeBorder = False,
    parents: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS",
            help="Labels of what the objects are in, such as cells; adds the column parent, the one with the largest overlap.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="With --threshold: limit of the memory, e.g. 4GB; default: half of the free memory."
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the objects of a label image of any size: positions, sizes, mean intensities, outlines.

    With --threshold the objects are found in a map first, as `predict --threshold` does.
    """
    from im2im_zoo.cli.objects import Table, parse_thresholding, run

    thresholding = parse_thresholding(threshold, of_class, split_touching, neck, fill_holes, min_size)
    table = Table(measure, exclude_border, parents)
    run(labels, outputs, image, axes, image_axes, thresholding, table, labels_to, memory, overwrite)


@app.command()
def view(
    image: Annotated[
        str, typer.Argument(metavar="INPUT", help="Image to show: any that `predict` reads, of any size.")
    ],
    prediction: Annotated[
        str | None,
        typer.Argument(metavar="PREDICTION", help="Result of `predict` for it: an image, or labels."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Label image to outline; default: the labels within PREDICTION or INPUT, if it is an OME-Zarr.",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File to write: page (.html) or picture (.png)."),
    ] = Path("view.html"),
    plane: Annotated[
        str | None,
        typer.Option(
            metavar="N|middle|max",
            help="z plane, counted from 0, or the maximum projection; default: in a page all, in a picture max, with labels middle.",
        ),
    ] = None,
    time: Annotated[
        int | None,
        typer.Option(help="Time point, counted from 0; default: in a page all, in a picture the first."),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(help="Channels of the input to show, by name or index, separated by commas."),
    ] = None,
    size: Annotated[int, typer.Option(metavar="PIXELS", help="Longest side of a picture.")] = 2048,
    axes: Annotated[
        str | None,
        typer.Option(help="Axes of the input as letters, e.g. zyx, if the file does not name them."),
    ] = None,
    prediction_axes: Annotated[
        str | None, typer.Option(help="Axes of the prediction, if the file does not name them.")
    ] = None,
    labels_axes: Annotated[
        str | None, typer.Option(help="Axes of the labels, if the file does not name them.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Show an image, its prediction and its labels in one page (sliders, no internet needed) or one PNG."""
    from im2im_zoo.cli.view import run

    run(
        image,
        prediction,
        labels,
        output,
        plane=plane,
        time=time,
        channels=channels,
        size=size,
        axes=(axes, prediction_axes, labels_axes),
        overwrite=overwrite,
        as_json=json,
    )


@app.command()
def show(
    source: Annotated[
        str, typer.Argument(metavar="PACKAGE|RUN|RECIPE", help="Package, run or recipe to describe.")
    ],
    json: Json = False,
) -> None:
    """Describe a package, a run or a recipe."""
    from im2im_zoo.cli.console import print_json, print_table
    from im2im_zoo.workflows.describe import describe, text_of

    content = describe(source)
    if json:
        print_json(content)
    else:
        print_table((str(content.pop("kind")), ""), [(key, text_of(value)) for key, value in content.items()])


@app.command()
def recipe(
    list_: Annotated[bool, typer.Option("--list", help="List the recipes that come with im2im_zoo.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of a recipe.")] = False,
    copy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Copy a recipe into this folder as a start for your own."),
    ] = None,
) -> None:
    """List the recipes, print their JSON Schema, or copy one into this folder."""
    from im2im_zoo.cli.recipe import run

    run(list_, schema, copy)


@app.command()
def samples(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Name of a recipe; default: list all.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FOLDER", help="Folder to create for the images; default: NAME_images."
        ),
    ] = None,
) -> None:
    """Write real sample images for a recipe, split into train/ and val/."""
    from im2im_zoo.cli.console import print_line, print_table
    from im2im_zoo.samples import SAMPLES, write_samples

    if name is None:
        print_table(("recipe", "images"), [(key, sample.description) for key, sample in SAMPLES.items()])
        return
    folder = write_samples(name, output or Path(f"{name}_images"))
    print_line(f"Wrote {folder}\nTrain on it: im2im-zoo train {name} --data.path={folder} --output RUN")


app.command("try")(package_commands.try_page)


app.command()(package_commands.serve)


@app.command()
def clean(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of outputs of `predict`, `export` or `objects`.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Remove the files; default: list them.")] = False,
    resumable: Annotated[
        bool, typer.Option("--resumable", help="Also those from which the same command would resume.")
    ] = False,
) -> None:
    """List what killed commands have left in a folder, and remove it with --yes. What a running command uses is kept."""
    from im2im_zoo.cli.clean import run

    run(folder, yes, resumable)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Folder to create.")] = Path(
        "im2im-zoo-demo"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Run every step on real microscopy, in minutes on a CPU: train, export, validate, predict, evaluate, report."""
    from im2im_zoo.cli.demo import run

    run(output, overwrite)


data_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Check images before you train on them."
)
app.add_typer(data_app, name="data")


@data_app.command("check", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def data_check(
    ctx: typer.Context,
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|DATA", help="Recipe, its name, or a folder or table of images."),
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write an HTML page with thumbnails.")
    ] = None,
    headers: Annotated[
        bool, typer.Option("--headers", help="Read only the headers of the files, no voxels: fast.")
    ] = False,
    json: Json = False,
) -> None:
    """Find problems of the images: axes, sizes, copies, leakage over the split, empty targets, saturation. Exit 0: no error.

    Override any key of a recipe by --dotted.key=value, e.g. --data.path=FOLDER.
    """
    from im2im_zoo.cli.data import check

    check(source, ctx.args, html, json, headers)
