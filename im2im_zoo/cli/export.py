"""`im2im-zoo export`."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import typer

from im2im_zoo.cli.browser import check_page, write_page_of
from im2im_zoo.cli.console import print_consumers, print_json, print_line, progress
from im2im_zoo.package import open_package
from im2im_zoo.packaging.consumers.programs import consumer_table
from im2im_zoo.packaging.export.weights import FORMATS, NEWEST_OPSET, OPSET

if TYPE_CHECKING:
    from im2im_zoo.packaging import Exported
    from im2im_zoo.packaging.editing.changes import Changes


def run(
    run_path: Path,
    output: Path,
    zip_file: Path | None,
    weights: Sequence[str] | None,
    checkpoint: str,
    overwrite: bool,
    allow_code: Sequence[str],
    portable: bool,
    onnx_opset: str,
    mirrored_test_output: bool,
    try_page: Path | None,
    no_try_page: bool,
    as_json: bool,
    metadata: "Changes",
) -> None:
    """Export a run, and print where the package is and which programs run it."""
    opset = parse_opset(onnx_opset)
    if checkpoint not in ("best", "last"):
        raise typer.BadParameter(
            f"{checkpoint!r} is not supported; choose best or last", param_hint="--checkpoint"
        )
    unknown = [w for w in weights or () if w not in FORMATS]
    if unknown:
        raise typer.BadParameter(
            f"{unknown[0]!r} is not supported; choose one of {', '.join(FORMATS)}", param_hint="--weights"
        )
    if try_page is not None and no_try_page:
        raise typer.BadParameter("--try-page and --no-try-page exclude each other; give one of them")
    if try_page is not None:
        from im2im_zoo.workflows.browser.page import find_application

        check_page(try_page, overwrite, "--try-page")
        find_application()
    from im2im_zoo.packaging.export.output_folder import check_free
    from im2im_zoo.workflows.export_run import export_run

    check_free(output, zip_file, overwrite)
    if sys.stdin.isatty() and not as_json:
        metadata = ask_metadata(run_path, metadata)
    with progress("Exporting", "voxels", counted=False) as bar:
        exported = export_run(
            run_path,
            output,
            zip_path=zip_file,
            weights=weights or None,
            checkpoint=cast(Literal["best", "last"], checkpoint),
            overwrite=overwrite,
            allow_code=allow_code,
            portable=portable,
            opset=opset,
            mirrored_test_output=mirrored_test_output,
            try_page=try_page is None and not no_try_page,
            metadata=metadata,
            progress=lambda stage, done, total: bar(done, total or None, now="Measuring"),
            report=print_line,
        )
    show_warnings(exported, run_path / "recipe.yaml")
    print_line(f"Done: {output}" + (f" and {zip_file}" if zip_file else ""))
    if try_page is not None:
        write_page_of(str(output), try_page, None)
    show_consumers(exported, as_json)
    print_line(f"Next: im2im-zoo validate {output}\n      im2im-zoo predict {output} INPUT OUTPUT.ome.zarr")


def ask_metadata(run_path: Path, given: "Changes") -> "Changes":
    """Ask on a terminal for author, description and licence, where neither the recipe nor an option has them; empty answers: later."""
    from im2im_zoo.training.run import open_run
    from im2im_zoo.workflows.metadata import with_metadata, without_sample_metadata

    run = open_run(run_path)
    names = (*run.provenance["data"]["train"], *run.provenance["data"]["validation"])
    package = with_metadata(without_sample_metadata(run.recipe, names)[0], given).package
    answers: dict[str, str | tuple[str, ...]] = {}
    questions = {
        "authors": "Author of the model (NAME; affiliation=...; orcid=...)",
        "description": "Description, in a sentence or two",
        "license": "Licence (e.g. MIT, CC-BY-4.0)",
    }
    for key, question in questions.items():
        if not getattr(package, key):
            answer = typer.prompt(f"{question} (empty: later)", default="", show_default=False).strip()
            if answer:
                answers[key] = (answer,) if key == "authors" else answer
    changed = replace(given, **answers)  # type: ignore[arg-type]
    with_metadata(run.recipe, changed)  # refuses malformed answers
    return changed


def parse_opset(text: str) -> int:
    """Return the opset of an option's text: a number or `newest`."""
    known = range(OPSET, NEWEST_OPSET + 1)
    if text != "newest" and (not text.isdecimal() or int(text) not in known):
        raise typer.BadParameter(
            f"{text!r} is not supported; choose a number from {known[0]} to {known[-1]}, or newest",
            param_hint="--onnx-opset",
        )
    return NEWEST_OPSET if text == "newest" else int(text)


def show_warnings(exported: "Exported", recipe: Path) -> None:
    """Print the warnings for the author of a package; missing metadata as one list with an instruction for each field."""
    missing = [line for line in exported.warnings if line.startswith("package.")]
    for warning in exported.warnings:
        if warning not in missing:
            kind = "warning" if warning.startswith("This model is not better") else "note"
            print_line(f"{kind}: {warning}")
    if missing:
        print_line(
            f"Missing metadata; give it by these options of export or edit, or in {recipe} and export again:"
        )
    for line in missing:
        print_line(f"  - {line}")


def show_consumers(exported: "Exported", as_json: bool) -> None:
    """Print which programs run a package."""
    with open_package(exported.folder) as package:
        table = consumer_table(package)
    if as_json:
        zipped = None if exported.zip_path is None else str(exported.zip_path)
        print_json(
            {
                "package": str(exported.folder),
                "zip": zipped,
                "warnings": list(exported.warnings),
                "consumers": [v.plain() for v in table],
            }
        )
    else:
        print_consumers(table)
