"""`im2im-zoo view`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_json, print_line
from im2im_zoo.core.sizes import bytes_text

if TYPE_CHECKING:
    from im2im_zoo.workflows.view.read import Plane


def run(
    image: str,
    prediction: str | None,
    labels: str | None,
    output: Path,
    *,
    plane: str | None,
    time: int | None,
    channels: str | None,
    size: int,
    axes: tuple[str | None, str | None, str | None],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write the view, and print what it shows."""
    from im2im_zoo.cli.predict import parse_channels
    from im2im_zoo.workflows.view.read import ViewSource
    from im2im_zoo.workflows.view.write import check_view_path, write_view

    chosen = _parse_plane(plane)
    check_view_path(output, overwrite=overwrite)
    written = write_view(
        ViewSource(image, axes[0], parse_channels(channels)),
        output,
        prediction=None if prediction is None else ViewSource(prediction, axes[1]),
        labels=None if labels is None else ViewSource(labels, axes[2]),
        plane=chosen,
        time=time,
        size=size,
        overwrite=overwrite,
    )
    if as_json:
        height, width = written.size
        print_json(
            {
                "view": str(written.path),
                "bytes": written.bytes,
                "height": height,
                "width": width,
                "notes": list(written.notes),
            }
        )
        return
    for note in written.notes:
        print_line(note)
    how = ": open it in a browser" if output.suffix.lower() == ".html" else ""
    print_line(f"Wrote {written.path} ({bytes_text(written.bytes)}){how}")


def _parse_plane(text: str | None) -> "Plane | None":
    if text is None:
        return None
    if text == "middle":
        return "middle"
    if text == "max":
        return "max"
    if not text.isdecimal():
        raise typer.BadParameter(
            f"invalid value {text!r}: give the number of a plane, counted from 0, or middle, or max",
            param_hint="--plane",
        )
    return int(text)
