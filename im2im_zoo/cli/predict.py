"""`im2im-zoo predict`."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from im2im_zoo.cli.console import print_json, print_line, print_text, progress, quantity
from im2im_zoo.cli.interruption import exit_in_time
from im2im_zoo.cli.objects import Table
from im2im_zoo.core.axes import axes_letters
from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.core.sizes import counted, parse_size

if TYPE_CHECKING:
    import xarray as xr

    from im2im_zoo.package import Package
    from im2im_zoo.runtime import Model, Plan, PredictionResult, Resources, Settings
    from im2im_zoo.runtime.inputs import Image
    from im2im_zoo.runtime.settings import Halo

_STAGES = {
    "statistics": "Statistics",
    "tiles": "Predicting",
    "finish": "Finishing",
    "instances": "Finding objects",
    "resampling": "Resampling",
}


def parse_memory(text: str) -> int:
    """Return the bytes of a size such as 4GB, 500 MB, 2GiB or 1000000."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from error


def parse_halo(text: str) -> "Halo":
    """Return the halo as a number of voxels, for all axes or by axis, or as one of its names."""
    if text == "auto":
        return "auto"
    if text in ("declared", "exact"):
        return "exact" if text == "exact" else "declared"
    if text.isdigit():
        return int(text)
    parts = [part.partition("=") for part in text.split(",")]
    if all(axis.strip() and size.strip().isdigit() for axis, _, size in parts):
        return {axis.strip(): int(size) for axis, _, size in parts}
    raise typer.BadParameter(
        f"{text!r} is not a halo; choose auto, exact, declared, a number of voxels, or z=8,y=32,x=32",
        param_hint="--halo",
    )


def parse_tile(text: str | None, axes: Sequence[str]) -> dict[str, int] | None:
    """Return the tile size by space axis, from one number for all of `axes`, or from `y=256,x=512`."""
    if text is None:
        return None
    parts = (
        [part.partition("=") for part in text.split(",")] if "=" in text else [(a, "=", text) for a in axes]
    )
    if not all(size.strip().isdigit() and axis.strip() in axes for axis, _, size in parts):
        wanted = ",".join(f"{axis}=256" for axis in axes)
        raise typer.BadParameter(
            f"{text!r} is not a tile size; give a number of voxels, or {wanted}", param_hint="--tile"
        )
    return {axis.strip(): int(size) for axis, _, size in parts}


def parse_channels(text: str | None) -> list[int | str] | None:
    """Return channels by index or name, from text separated by commas."""
    if text is None:
        return None
    return [int(c) if c.strip().isdigit() else c.strip() for c in text.split(",")]


def parse_named(values: Sequence[str], option: str) -> dict[str, str]:
    """Return the values of an option that is given as NAME=VALUE, by name."""
    pairs = [value.partition("=") for value in values]
    if not all(name and sign and value for name, sign, value in pairs):
        raise typer.BadParameter(
            "the value is not of the form NAME=PATH; give the name of the tensor and a path",
            param_hint=option,
        )
    return {name: value for name, _, value in pairs}


def split_main(values: Sequence[str], option: str) -> tuple[str | None, dict[str, str]]:
    """Return the value for the main input, and the values for further inputs by name: `zyx` and `mask=yx`."""
    plain = [v for v in values if "=" not in v]
    if len(plain) > 1:
        raise typer.BadParameter(
            f"more than one value for the main input ({', '.join(plain)}): give one, and NAME=VALUE for further inputs",
            param_hint=option,
        )
    return (plain[0] if plain else None), parse_named([v for v in values if "=" in v], option)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The images of the command, as typed by the user."""

    main: str
    axes: Sequence[str]
    channels: Sequence[str]
    others: Sequence[str]
    join: Sequence[str]

    def open(self) -> "tuple[xr.DataArray, dict[str, Image]]":
        """Open the main image and the images of further inputs, lazily."""
        from im2im_zoo.images import open_image
        from im2im_zoo.runtime.inputs import open_joined

        axes, axes_of = split_main(self.axes, "--axes")
        channels, channels_of = split_main(self.channels, "--channels")
        paths = parse_named(self.others, "--input")
        unpaired = sorted((set(axes_of) | set(channels_of)) - set(paths))
        if unpaired:
            raise typer.BadParameter(
                f"the input {unpaired[0]} has no image; add --input {unpaired[0]}=PATH",
                param_hint="--axes, --channels",
            )
        inputs: dict[str, Image] = {
            name: open_image(path, axes=axes_of.get(name), channels=parse_channels(channels_of.get(name)))
            for name, path in paths.items()
        }
        return open_joined([self.main, *self.join], axes, parse_channels(channels)), inputs


@dataclass(frozen=True, slots=True)
class Outputs:
    """The files to write, as typed by the user."""

    main: Path
    others: Sequence[str]
    objects: Sequence[Path]
    table: Table
    overwrite: bool


def run(
    package: str,
    inputs: Inputs,
    outputs: Outputs,
    settings: "Settings",
    resources: "Resources",
    *,
    tile: str | None,
    allow_code: bool,
    plan_only: bool,
    restart: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Plan, and predict unless only the plan is requested."""
    from im2im_zoo.package import open_package
    from im2im_zoo.runtime import Model
    from im2im_zoo.runtime.execute.outputs import check_writable

    # Refused here, before a package is downloaded or opened.
    named_outputs = parse_named(outputs.others, "--output")
    check_writable([outputs.main, *map(Path, named_outputs.values())])
    with open_package(package) as opened:
        space = [str(axis.id) for axis in opened.inputs[0].axes if axis.type == "space"]
        settings = replace(settings, tile=parse_tile(tile, space))
        main, others = inputs.open()
        _check_objects(opened, outputs, settings)
        model = Model(opened, allow_code)
        if plan_only:
            plan = model.plan(main, inputs=others, settings=settings, resources=resources, strict=strict)
            show_plan(plan, as_json=as_json)
            return
        done = predict_with_progress(
            model,
            main,
            outputs.main,
            inputs=others,
            outputs=named_outputs,
            settings=settings,
            resources=resources,
            overwrite=outputs.overwrite,
            restart=restart,
            strict=strict,
            completed=lambda result: _write_objects(result, main, outputs),
        )
    if as_json:
        print_json(result_json(done))


def _write_objects(done: "PredictionResult", image: "xr.DataArray", outputs: Outputs) -> None:
    """Write the files of the objects, but for those that an earlier run of the command has written."""
    if not outputs.objects or done.labels is None:
        return
    from im2im_zoo.cli.objects import write_all
    from im2im_zoo.images import format_of, open_image

    written = format_of(done.labels, "write")
    unstated = written is not None and "axes" not in written.keeps
    labels = open_image(
        done.labels, axes=axes_letters(done.plan.grouping.axes) if unstated and done.plan.grouping else None
    )
    kept = [p for p in outputs.objects if p.exists() and (done.already_complete or not outputs.overwrite)]
    for path in kept:
        print_line(f"{path} exists already and is kept; --overwrite predicts and measures again")
    write_all(labels, [p for p in outputs.objects if p not in kept], image, outputs.table, outputs.overwrite)


def _check_objects(package: "Package", outputs: Outputs, settings: "Settings") -> None:
    """Check before the prediction that it makes labels, and that the files of the objects can be written."""
    if not outputs.objects:
        return
    from im2im_zoo.objects import check_objects_path

    if not settings.thresholding.is_given and (package.grouping is None or not settings.group):
        raise typer.BadParameter(
            "needs labels, but this prediction writes none; add --threshold, above which values of the map are objects "
            "(0.5 for a probability), or measure a label image with `im2im-zoo objects`",
            param_hint="--objects",
        )
    for path in outputs.objects:
        # A prediction that is already complete keeps the files of its objects.
        check_objects_path(path, overwrite=outputs.overwrite or outputs.main.exists())


def predict_with_progress(model: "Model", image: "Image", output: Path, **options: Any) -> "PredictionResult":
    """Predict with a progress bar; options are those of `Model.predict`."""
    from im2im_zoo.runtime.execute.work_folder import find_unfinished

    output_bytes, has_started = 0, False

    def planned(plan: "Plan", resumed: int) -> None:
        nonlocal output_bytes, has_started
        output_bytes, has_started = plan.output_bytes, True
        _print_plan_summary(plan, resumed)

    with progress("Predicting", "voxels", counted=False) as bar:

        def report(stage: str, voxels: int, total: int) -> None:
            part = voxels / total if total else 0.0
            note = f"{quantity(part * output_bytes)}B" if total else ""
            bar(voxels, total or None, note, _STAGES[stage])

        try:
            with exit_in_time():
                done = model.predict(image, output, progress=report, planned=planned, **options)
        except BaseException as error:
            is_refused = isinstance(error, Im2ImError) and not has_started
            if not is_refused and (left := find_unfinished(output)) is not None:
                print_line(f"Partial results are kept in {left}. Run the same command to resume.")
            raise
    if done.not_finite:
        print_line(
            f"warning: {done.not_finite} values of {output} are NaN or infinite; check the image and the model there"
        )
    for warning in done.warnings:
        print_line(f"warning: {warning}")
    names = ", ".join(str(p) for p in done.outputs)
    of_objects = "" if done.objects is None else f" with {counted(done.objects, 'object')}"
    if done.already_complete:
        print_line(
            f"Already complete: {names}{of_objects}: this command has written it before; --overwrite predicts again"
        )
        return done
    if done.labels is not None:
        within = f", labels in {done.labels}" if done.labels != done.output else ""
        names += f"{of_objects}{within}"
    print_line(
        f"Done: {names}: {counted(done.tiles, 'tile')} in {done.seconds:.1f} s, {quantity(done.voxels_per_second)}voxels/s, "
        f"{quantity(done.output_bytes)}B, peak memory {quantity(done.peak_bytes)}B"
    )
    if done.objects == 0:
        print_line(_no_objects_warning(model, done.plan))
    return done


def _no_objects_warning(model: "Model", plan: "Plan") -> str:
    """Return a warning that no object was found, with the parameters of the instance segmentation to lower."""
    from im2im_zoo.instances.thresholding import ThresholdGrouping

    if plan.grouping is None:
        raise ValueError("a plan without instance segmentation")
    grouping, package = plan.grouping.grouping, model.package
    function = grouping.load(package.root, allow_code=model.allow_code)
    given = {
        name: function.kwargs.get(name, parameter.default)
        for name, parameter in inspect.signature(function.function).parameters.items()
        if "threshold" in name or name == "min_size"
    }
    if isinstance(grouping, ThresholdGrouping):
        options = ", ".join(f"--{name.replace('_', '-')} ({value})" for name, value in given.items())
        return f"warning: no object was found; if the image has objects, lower {options}, and check the map"
    lower = (
        ", ".join(f"{name} ({value})" for name, value in given.items())
        or "the parameters that discard objects"
    )
    return (
        f"warning: no object was found; if the image has objects, lower {lower} in config.im2im_zoo.grouping.kwargs of "
        "the package's rdf.yaml, and check the maps, which --no-grouping writes"
    )


def _print_plan_summary(plan: "Plan", resumed: int) -> None:
    """Print a summary of the plan before the first tile."""
    tile = " x ".join(str(a.tile) for a in plan.axes)
    halo = ", ".join(f"{a.name} {a.halo}" for a in plan.axes if len(a.spans) > 1)
    cut = f"{counted(len(plan), 'tile')} of {tile} voxels" + (
        f", halo {halo} ({plan.halo_source})" if halo else ""
    )
    print_line(f"{plan.model}: {plan.weights_format} weights, {plan.backend}, {plan.precision}; {cut}")
    for warning in plan.warnings:
        print_line(f"warning: {warning}")
    if plan.blend:
        print_line(f"warning: tiles are blended because {plan.halo_note}")
    if plan.grouping is not None:
        blocks = plan.grouping.block
        blocks_text = (
            "the whole image" if blocks is None else f"blocks of {' x '.join(map(str, blocks))} voxels"
        )
        print_line(f"Instance segmentation: {plan.grouping.grouping.source} on {blocks_text}")
    if resumed:
        print_line(f"Resuming: {resumed} of {len(plan)} tiles are finished")


def result_json(done: "PredictionResult") -> dict[str, Any]:
    """Return the results of a prediction as plain values."""
    return {
        "output": str(done.output),
        "already_complete": done.already_complete,
        "outputs": [str(p) for p in done.outputs],
        "seconds": done.seconds,
        "voxels": done.voxels,
        "voxels_per_second": done.voxels_per_second,
        "tiles": done.tiles,
        "resumed_tiles": done.resumed,
        "not_finite": done.not_finite,
        "labels": None if done.labels is None else str(done.labels),
        "objects": done.objects,
        "warnings": [*done.plan.warnings, *done.warnings],
        "peak_bytes": done.peak_bytes,
        "input_bytes": done.input_bytes,
        "output_bytes": done.output_bytes,
        "engine": done.reason,
        "plan": done.plan.to_json(),
    }


def show_plan(plan: "Plan", as_json: bool) -> None:
    """Print a plan as text or JSON."""
    if as_json:
        print_json(plan.to_json(tiles=True))
    else:
        print_text(str(plan))
