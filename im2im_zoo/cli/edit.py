"""`im2im-zoo edit`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_json, print_line, print_text

if TYPE_CHECKING:
    from im2im_zoo.packaging.editing.changes import Changes

_PARTS = ("major", "minor", "patch")


def check_bump(bump: str | None, version: str | None) -> None:
    """Check the options that set a version."""
    if bump is not None and bump not in _PARTS:
        raise typer.BadParameter(
            f"{bump!r} is not supported; choose one of {', '.join(_PARTS)}", param_hint="--bump"
        )
    if bump is not None and version is not None:
        raise typer.BadParameter("--bump and --version exclude each other; give one of them")


def run(source: str, changes: "Changes", output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Edit a package, and print what changed."""
    if changes.is_empty:
        raise typer.BadParameter("there is nothing to change: give at least one option, e.g. --license MIT")
    from im2im_zoo.packaging.editing.edit import edit_package

    edited = edit_package(source, changes, output=output, overwrite=overwrite)
    if as_json:
        print_json(edited.plain())
        return
    for key, (old, new) in edited.changed.items():
        print_text(f"{key}: {_short(old)} -> {_short(new)}")
    for name in edited.files:
        print_text(f"wrote {name}")
    for note in edited.notes:
        print_line(f"note: {note}")
    if edited.outputs:
        print_line(f"Done: {' and '.join(map(str, edited.outputs))}")
    else:
        print_line(f"{source} has these values already; nothing was written")


def _short(value: object) -> str:
    text = "none" if value is None else " ".join(str(value).split())
    return text if len(text) <= 200 else f"{text[:197]}..."
