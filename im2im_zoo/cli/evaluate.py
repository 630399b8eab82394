"""`im2im-zoo evaluate`."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from im2im_zoo.cli.console import print_line, print_table

if TYPE_CHECKING:
    from im2im_zoo.evaluation import Evaluation, Sample

# Images of a folder that are shown in a report, one window each.
_MAX_PICTURES = 8


def run(
    prediction: str,
    target: str,
    task: str,
    axes: str | None,
    target_axes: str | None,
    threshold: float,
    data_range: float | None,
    report: Path | None,
    image: str | None,
    as_json: bool,
) -> None:
    """Evaluate two images, or all of two folders, and print the metrics."""
    from im2im_zoo.evaluation import TASKS, evaluate, mean_evaluation
    from im2im_zoo.images import open_image

    if task not in TASKS:
        raise typer.BadParameter(
            f"{task!r} is not supported; choose one of {', '.join(TASKS)}", param_hint="--task"
        )
    if task != "instance" and (report is not None or image is not None):
        raise typer.BadParameter(
            "works only with --task instance; add it, or leave this option out",
            param_hint="--report, --image",
        )
    samples: list[Sample] = []
    results = []
    pairs = _pairs(prediction, target, image)
    for one, other, shown in pairs:
        is_mask = task != "regression"
        predicted = open_image(with_labels(one) if task == "instance" else one, axes=axes, labels=is_mask)
        truth = open_image(other, axes=target_axes, labels=is_mask)
        results.append(evaluate(predicted, truth, task, threshold=threshold, data_range=data_range))
        if len(pairs) > 1:
            results[-1] = _rename_images(results[-1], Path(one).name)
        if report is not None and len(samples) < _MAX_PICTURES:
            samples += _pictures(predicted, truth, shown, most=4 if len(pairs) == 1 else 1)
    result = mean_evaluation(results) if len(results) > 1 else results[0]
    if report is not None:
        from im2im_zoo.evaluation import instance_report, write_report

        title = f"{Path(prediction).name} against {Path(target).name}"
        print_line(f"Wrote {write_report(report, instance_report(title, result, samples))}")
    if as_json:
        sys.stdout.write(result.to_json() + "\n")
    else:
        show_evaluation(result)


def _pairs(prediction: str, target: str, image: str | None) -> list[tuple[str, str, str | None]]:
    """Return (prediction, target, image) paths: two images, or the images of the same name in two folders."""
    folders = [Path(p) for p in (prediction, target) if is_folder(p)]
    if not folders:
        return [(prediction, target, image)]
    if len(folders) == 1 or (image is not None and not is_folder(image)):
        raise typer.BadParameter(
            "images and folders are mixed; give either one image or one folder for each argument"
        )
    ours, theirs = images_by_name(folders[0]), images_by_name(folders[1])
    images = images_by_name(Path(image)) if image is not None else {}
    unpaired = sorted(ours.keys() ^ theirs.keys())
    if unpaired or not ours:
        raise typer.BadParameter(
            f"{folders[0]} and {folders[1]} must hold images of the same names (file extensions may differ); "
            + (f"only one has {', '.join(unpaired[:5])}" if unpaired else "they have no images")
        )
    return [(ours[name], theirs[name], images.get(name)) for name in sorted(ours)]


def is_folder(path: str) -> bool:
    """Return whether a path is a folder that is not itself an image."""
    from im2im_zoo.images.registry import is_image_folder

    return Path(path).is_dir() and not is_image_folder(Path(path))


def images_by_name(folder: Path) -> dict[str, str]:
    """Return the paths of the images in a folder by their names without endings."""
    from im2im_zoo.images import is_image_file, stem_of

    return {stem_of(path): str(path) for path in sorted(folder.iterdir()) if is_image_file(path)}


def _rename_images(result: "Evaluation", name: str) -> "Evaluation":
    """Return the evaluation with its metrics per image under the file's name, as labels inside an OME-Zarr all have one name."""
    per_image = tuple((", ".join([name, *n.split(", ")[1:]]), metrics) for n, metrics in result.per_image)
    return replace(result, per_image=per_image)


def _pictures(prediction: Any, target: Any, image: str | None, most: int) -> "list[Sample]":
    from im2im_zoo.evaluation import worst_windows
    from im2im_zoo.images import open_image

    return worst_windows(prediction, target, None if image is None else open_image(image), most=most)


def with_labels(prediction: str) -> str:
    """Return the path of the labels that `predict` wrote into an OME-Zarr, if any; else the path of the image itself."""
    from im2im_zoo.instances.grouping import INSTANCES

    labels = Path(prediction) / "labels" / INSTANCES
    if not labels.is_dir():
        return prediction
    print_line(f"Using the labels {labels}")
    return str(labels)


def show_evaluation(result: "Evaluation") -> None:
    """Print the metrics as a table with their definitions."""
    rows, printed = [], ""
    for name, value in result.flat().items():
        meaning = _definition(result, name)
        rows.append((name, value, "" if meaning == printed else meaning))
        printed = meaning
    print_table(("metric", "value", "definition"), rows)
    settings = ", ".join(f"{name}: {value}" for name, value in result.settings.items())
    for note in (*([settings] if settings else []), *result.notes):
        print_line(note)


def _definition(result: "Evaluation", name: str) -> str:
    return result.definitions.get(name, "") if "[" not in name else ""
