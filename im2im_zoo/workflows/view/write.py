"""Writing of a view of an image, its prediction and its labels: one PNG, or one HTML page with sliders."""

from dataclasses import dataclass, field
from pathlib import Path

from im2im_zoo.core.errors import EvaluationError
from im2im_zoo.evaluation.files import write_file
from im2im_zoo.images.address import Place
from im2im_zoo.workflows.view.page import view_page
from im2im_zoo.workflows.view.picture import view_png
from im2im_zoo.workflows.view.read import SIZE, Plane, ViewSource, read_view


@dataclass(frozen=True, slots=True)
class WrittenView:
    """A view in a file: its path, its bytes, pixels of a picture as (height, width), and what is shown, as sentences."""

    path: Path
    bytes: int
    size: tuple[int, int]
    notes: tuple[str, ...] = field(default=())


def write_view(
    source: str | Place | ViewSource,
    output: str | Path,
    *,
    prediction: str | Place | ViewSource | None = None,
    labels: str | Place | ViewSource | None = None,
    plane: Plane | None = None,
    time: int | None = None,
    size: int = SIZE,
    overwrite: bool = False,
) -> WrittenView:
    """Write a picture (`.png`) or a self-contained page (`.html`) of an image, its prediction and its labels.

    Large images are read block by block, an OME-Zarr at a coarser level of its pyramid, so that memory stays small.

    Example:
        >>> write_view("cells.ome.zarr", "cells.html", prediction="result.ome.zarr")  # doctest: +SKIP

    Args:
        source: the image.
        output: file to write, whole or not at all.
        prediction: of the image; of integers that `predict` wrote as labels, it is shown as labels. If it is an OME-Zarr with the
            instances that `predict` found, these are shown, and not the maps that they were made of.
        labels: label image; default: the labels within `prediction`, or within `source`, if they are OME-Zarr and have some.
        plane: index of a z plane, "middle", or "max", the maximum projection. Default: of a page all planes (48 if there are more),
            of a PNG the projection, or the middle plane if there are labels.
        time: index of a time point; default: of a page all (48 if there are more), of a PNG the first.
        size: largest number of pixels along y and x; of a stack on a page fewer, so that the page stays small.
        overwrite: replace what is at `output`.

    Raises:
        EvaluationError: an output that cannot be written, a prediction or labels of another size than the image, labels that are none,
            or a plane or time that the image does not have.
        ImageError, AxesError: an image that cannot be opened.
    """
    path = Path(output)
    check_view_path(path, overwrite=overwrite)
    is_page = path.suffix.lower() == ".html"
    view = read_view(
        source, prediction=prediction, labels=labels, plane=plane, time=time, size=size, all_frames=is_page
    )
    content = view_page(view).encode("utf-8") if is_page else view_png(view)
    write_file(path, content)
    return WrittenView(path, len(content), view.size, tuple(view.sentences()))


def check_view_path(path: Path, *, overwrite: bool) -> None:
    """Refuse a path that a view cannot be written to, before anything is read.

    Raises:
        EvaluationError: another suffix, no such folder, or an existing file.
    """
    if path.suffix.lower() not in (".png", ".html"):
        raise EvaluationError(f"{path}: a view is a picture or a page; end its name in .png or .html")
    if not path.absolute().parent.is_dir():
        raise EvaluationError(f"{path}: the folder {path.parent} does not exist; create it first")
    if path.is_dir() or (path.exists() and not overwrite):
        raise EvaluationError(f"{path}: exists already; choose another path, or replace it with --overwrite")
