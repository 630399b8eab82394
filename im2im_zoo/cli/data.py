"""`im2im-zoo data check`: what will go wrong with the images of a recipe or a folder, and a page of thumbnails."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from im2im_zoo.cli.console import print_json, print_table, progress, say
from im2im_zoo.cli.train import parse_overrides
from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.recipe.load import load_recipe, recipe_names

if TYPE_CHECKING:
    import xarray as xr

    from im2im_zoo.data.check.examine import Examination
    from im2im_zoo.data.check.finding import DataFinding, ExaminedImage
    from im2im_zoo.data.patches.advice import Choice
    from im2im_zoo.data.patches.extents import ImageExtents
    from im2im_zoo.evaluation.gallery import Remark, Row
    from im2im_zoo.evaluation.panels import Panel
    from im2im_zoo.recipe import Recipe

_LISTED = 5
_THUMBNAILS = 120
_SIDE = 192


def check(
    source: str, arguments: Sequence[str], page: Path | None, as_json: bool, headers_only: bool
) -> None:
    """Look through the images and tell what was found; exit 1 if there is an error among it."""
    from im2im_zoo.data.check.examine import examine

    recipe = _recipe(source, arguments)
    with progress("Looking at the images", "images") as bar:
        found = examine(recipe, voxels=not headers_only, progress=bar)
    advice = _advice(recipe, found, with_network=_is_recipe(source))
    if as_json:
        print_json(_as_json(recipe, found, advice))
    else:
        _print(recipe, found, advice)
    if page is not None:
        _write_page(page, recipe, found, advice)
        say(f"Wrote {page}")
    if not found.is_sound:
        raise typer.Exit(1)


def _recipe(source: str, arguments: Sequence[str]) -> "Recipe":
    path = Path(source)
    if _is_recipe(source):
        return load_recipe(source, parse_overrides(arguments))
    if arguments:
        raise typer.BadParameter(
            f"{arguments[0]!r} overrides a key of a recipe, but {source} is none; give a recipe, and --data.path={source}"
        )
    from im2im_zoo.data.pairing.guess import guess_recipe

    return guess_recipe(path)


def _is_recipe(source: str) -> bool:
    path = Path(source)
    return source in recipe_names() or path.suffix in (".yaml", ".yml") or (path / "recipe.yaml").is_file()


def _print(recipe: "Recipe", found: "Examination", advice: "Sequence[Choice]") -> None:
    say(_summary(recipe, found))
    for finding in found.findings:
        print(f"\n{finding.severity} [{finding.code}] {finding.message}")
        for file in finding.files[:_LISTED]:
            print(f"  {file}")
        if len(finding.files) > _LISTED:
            print(f"  and {len(finding.files) - _LISTED} more: --json lists all")
    for choice in advice:
        print(f"\n--{choice.key}={str(choice.value).replace(' ', '')} would suit: {choice.reason}")
    counts = Counter(finding.severity for finding in found.findings)
    print()
    print_table(("errors", "warnings", "images"), [(counts["error"], counts["warning"], len(found.examined))])


def _advice(recipe: "Recipe", found: "Examination", *, with_network: bool) -> "list[Choice]":
    """What suits the images and this machine, by the rules of training."""
    import torch

    from im2im_zoo.data.patches.advice import choose_batch, choose_patch, choose_workers
    from im2im_zoo.data.patches.extents import measure_extents

    inputs = [entry.image for entry in found.examined if entry.side == "input"]
    if not inputs:
        return []
    targets = [entry.image for entry in found.examined if entry.side == "target"]
    extents = measure_extents([*inputs, *targets], targets if recipe.output.task == "instance" else ())
    gpu = torch.cuda.is_available() and recipe.trainer.get("accelerator") != "cpu"
    made = _of_network(recipe, extents, inputs[0], (targets or inputs)[0]) if with_network else ()
    if not made:
        patch = choose_patch(extents, gpu=gpu)
        made = (patch, choose_batch(patch.value, gpu=gpu))
    return [*made, choose_workers(recipe.trainer, gpu=gpu)]


def _of_network(
    recipe: "Recipe", extents: "ImageExtents", image: "xr.DataArray", target: "xr.DataArray"
) -> "tuple[Choice, ...]":
    """What suits the recipe's network too; () if it cannot be built here, of which training tells."""
    unsaid = recipe.data.model_copy(update={"patch_size": None, "batch_size": None})
    try:
        from im2im_zoo.training.auto_configure import ChannelCounts, select_settings

        channels = ChannelCounts(image.sizes["channel"], target.sizes["channel"])
        return select_settings(recipe.model_copy(update={"data": unsaid}), extents, channels)
    except (ImportError, Im2ImError):
        return ()


def _summary(recipe: "Recipe", found: "Examination") -> str:
    names = {
        part: {entry.name for entry in found.examined if entry.part == part}
        for part in ("train", "validation")
    }
    data = recipe.data
    return (
        f"{data.path}: {len(names['train'])} to train, {len(names['validation'])} to validate (data.pairing: {data.pairing}, "
        f"data.split: {data.split}, axes {', '.join(recipe.input.axes[1:])}, task {recipe.output.task})"
    )


def _as_json(recipe: "Recipe", found: "Examination", advice: "Sequence[Choice]") -> dict[str, Any]:
    return {
        "sound": found.is_sound,
        "data": recipe.data.model_dump(mode="json", exclude_defaults=True),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity,
                "message": finding.message,
                "files": list(finding.files),
                "names": list(finding.names),
            }
            for finding in found.findings
        ],
        "advice": {choice.key: {"value": choice.value, "reason": choice.reason} for choice in advice},
        "images": [_image_json(entry) for entry in found.examined],
    }


def _image_json(entry: "ExaminedImage") -> dict[str, Any]:
    from im2im_zoo.images import pixel_size_um

    known = entry.voxels
    return {
        "name": entry.name,
        "part": entry.part,
        "side": entry.side,
        "file": entry.source,
        "sizes": {str(axis): size for axis, size in entry.image.sizes.items()},
        "dtype": str(entry.image.dtype),
        "pixel_size_um": pixel_size_um(entry.image),
        "minimum": known and known.lowest,
        "maximum": known and known.highest,
        "at_maximum": known and known.at_highest / known.count,
        "not_finite": known and known.not_finite,
        "fingerprint": known and known.fingerprint,
    }


def _write_page(page: Path, recipe: "Recipe", found: "Examination", advice: "Sequence[Choice]") -> None:
    from im2im_zoo.evaluation.gallery import Gallery, Remark, write_gallery

    grades = {name: finding.severity for finding in reversed(found.findings) for name in finding.names}
    names = sorted({entry.name for entry in found.examined}, key=lambda name: (grades.get(name, "z"), name))
    remarks = [_remark(finding) for finding in found.findings] or [
        Remark("good", "nothing", "was found that would go wrong.")
    ]
    rows = [_row(name, found, recipe, grades.get(name, "")) for name in names[:_THUMBNAILS]]
    remarks += [Remark("", choice.key, f"{choice.value} would suit: {choice.reason}") for choice in advice]
    if len(names) > _THUMBNAILS:
        remarks.append(
            Remark("", "note", f"{len(names) - _THUMBNAILS} more images, of which nothing is shown below")
        )
    counts = Counter(finding.severity for finding in found.findings)
    facts = {
        "training pairs": str(len({entry.name for entry in found.examined if entry.part == "train"})),
        "validation pairs": str(len({entry.name for entry in found.examined if entry.part == "validation"})),
        "errors": str(counts["error"]),
        "warnings": str(counts["warning"]),
    }
    summary = _summary(recipe, found)
    write_gallery(page, Gallery("Data check", summary, facts, tuple(remarks), tuple(rows)))


def _remark(finding: "DataFinding") -> "Remark":
    from im2im_zoo.evaluation.gallery import Remark

    return Remark(finding.severity, finding.code, finding.message, finding.files)


def _row(name: str, found: "Examination", recipe: "Recipe", grade: str) -> "Row":
    from im2im_zoo.evaluation.gallery import Row

    examined = [entry for entry in found.examined if entry.name == name]
    codes = [finding.code for finding in found.findings if name in finding.names]
    return Row(
        name, tuple(_panel(entry, recipe) for entry in examined), ", ".join([examined[0].part, *codes]), grade
    )


def _panel(entry: "ExaminedImage", recipe: "Recipe") -> "Panel":
    from im2im_zoo.evaluation.panels import Panel

    image = entry.image
    sizes = " × ".join(
        str(image.sizes[axis]) for axis in image.dims if axis != "channel" or image.sizes[axis] > 1
    )
    kind = "intensity"
    if entry.side == "target" and recipe.output.task != "regression" and image.dtype.kind in "bui":
        kind = "labels"
    caption = f"{sizes}, {image.dtype}"
    return Panel(entry.side, _thumbnail(image), kind, caption)  # type: ignore[arg-type]


def _thumbnail(image: "xr.DataArray") -> "xr.DataArray":
    """The middle plane, of large images every n-th pixel; nothing else is read."""
    if "z" in image.dims:
        image = image.isel(z=image.sizes["z"] // 2)
    step = max(1, math.ceil(max(image.sizes["y"], image.sizes["x"]) / _SIDE))
    return image.isel(y=slice(None, None, step), x=slice(None, None, step)).load()
