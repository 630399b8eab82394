"""`im2im-zoo objects`, and the files of `im2im-zoo predict --objects`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from im2im_zoo.cli.console import print_line
from im2im_zoo.core.sizes import counted, parse_size

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

    from im2im_zoo.instances.thresholding import Thresholding


@dataclass(frozen=True, slots=True)
class Table:
    """The options of the table of objects, as typed by the user."""

    measure: str = "basic"
    exclude_border: bool = False
    parents: str | None = None

    def __post_init__(self) -> None:
        if self.measure not in ("basic", "all"):
            raise typer.BadParameter(
                f"invalid value {self.measure!r}: choose one of basic, all", param_hint="--measure"
            )


def run(
    labels: str,
    outputs: Sequence[Path],
    image: str | None,
    axes: str | None,
    image_axes: str | None,
    thresholding: "Thresholding",
    table: Table,
    labels_to: Path | None,
    memory: str | None,
    overwrite: bool,
) -> None:
    """Measure the objects of a label image, or of a map by a threshold, and write the files."""
    from im2im_zoo.cli.evaluate import with_labels
    from im2im_zoo.images import open_image
    from im2im_zoo.objects import check_objects_path

    for output in outputs:
        check_objects_path(output, overwrite=overwrite)
    if not thresholding.is_given:
        for option, value in (("--labels", labels_to), ("--memory", memory)):
            if value is not None:
                raise typer.BadParameter(
                    "is for finding objects in a map; add --threshold", param_hint=option
                )
    if (several := _several(labels)) is not None:
        if labels_to is not None:
            raise typer.BadParameter("is for one image; leave it out", param_hint="--labels")
        options = (axes, image_axes, thresholding, table, memory)
        _write_several(*several, labels, outputs, image, options, overwrite)
        return
    if not thresholding.is_given:
        opened = open_image(with_labels(labels), axes=axes, labels=True)
        write_all(opened, outputs, _opened(image, image_axes), table, overwrite)
        return
    with _segmented(labels, axes, thresholding, outputs[0], labels_to, memory, overwrite) as found:
        write_all(found, outputs, _opened(image, image_axes), table, overwrite)


def _several(source: str) -> tuple[str, dict[str, str]] | None:
    """Return the name of the column and the images of a plate or a folder, by name; None for a single image."""
    from im2im_zoo.cli.evaluate import images_by_name, is_folder
    from im2im_zoo.images import plate_images

    if not Path(source).is_dir():
        return None
    fields = plate_images(Path(source))
    if fields is not None:
        return "field", {f.relative_to(source).as_posix(): str(f) for f in fields}
    if not is_folder(source):
        return None
    found = images_by_name(Path(source))
    if not found:
        raise typer.BadParameter(f"{source} holds no images", param_hint="LABELS")
    return "file", found


def _write_several(
    column: str,
    sources: Mapping[str, str],
    folder: str,
    outputs: Sequence[Path],
    image: str | None,
    options: "tuple[str | None, str | None, Thresholding, Table, str | None]",
    overwrite: bool,
) -> None:
    """Measure the objects of several images into one table."""
    from im2im_zoo.cli.evaluate import with_labels
    from im2im_zoo.core.errors import Im2ImError
    from im2im_zoo.images import open_image
    from im2im_zoo.objects import write_several
    from im2im_zoo.objects.check import check_labels
    from im2im_zoo.objects.table import object_table

    axes, image_axes, thresholding, table, memory = options
    if len(outputs) > 1 or table.parents is not None:
        raise typer.BadParameter("of several images there is one table, without --parents; give one FILE")
    images = _images_of(sources, folder, image)

    def tables() -> "Iterator[tuple[str, pd.DataFrame]]":
        for name, source in sources.items():
            shown = _opened(images.get(name), image_axes)
            try:
                with (
                    _segmented(source, axes, thresholding, outputs[0], None, memory, overwrite)
                    if thresholding.is_given
                    else nullcontext(open_image(with_labels(source), axes=axes, labels=True))
                ) as found:
                    check_labels(found)
                    measured = object_table(
                        found,
                        shown,
                        measure="all" if table.measure == "all" else "basic",
                        exclude_border=table.exclude_border,
                    )
            except Im2ImError as error:
                raise type(error)(f"{source}: {error}") from error
            print_line(f"{name}: {counted(len(measured), 'object')}")
            yield name, measured

    count = write_several(tables(), outputs[0], column, overwrite=overwrite)
    print_line(f"Wrote {outputs[0]}: {counted(count, 'object')} in {counted(len(sources), 'image')}")


def _images_of(sources: Mapping[str, str], folder: str, image: str | None) -> dict[str, str]:
    """Return the images for intensities by the names of the labels: those of the same names in another folder or plate."""
    if image is None:
        return {}
    several = _several(image)
    images = {} if several is None else several[1]
    lost = sorted(set(sources) - set(images))
    if lost:
        raise typer.BadParameter(
            f"{image} must hold an image for each of {folder}, with the same name; there is none for {', '.join(lost[:5])}",
            param_hint="--image",
        )
    return images


def _opened(image: str | None, axes: str | None) -> "xr.DataArray | None":
    from im2im_zoo.images import open_image

    return None if image is None else open_image(image, axes=axes)


@contextmanager
def _segmented(
    source: str,
    axes: str | None,
    thresholding: "Thresholding",
    output: Path,
    labels_to: Path | None,
    memory: str | None,
    overwrite: bool,
) -> "Iterator[xr.DataArray]":
    """Yield the labels of a map; they are in a folder beside the output until the table is written."""
    from im2im_zoo.core.atomic import discard, hidden_sibling, remove_leftovers
    from im2im_zoo.images import open_image, write_image
    from im2im_zoo.objects.from_map import segment_map
    from im2im_zoo.runtime.execute.outputs import check_writable

    if labels_to is not None:
        check_writable([labels_to])
        if labels_to.exists() and not overwrite:
            raise typer.BadParameter(
                f"{labels_to} exists already; choose another path, or replace it with --overwrite",
                param_hint="--labels",
            )
    opened = open_image(source, axes=axes)
    remove_leftovers(output)
    folder = hidden_sibling(output, "partial")
    folder.mkdir()
    try:
        found, count = segment_map(
            opened, thresholding, folder, memory=None if memory is None else _bytes(memory)
        )
        if labels_to is not None:
            write_image(found, labels_to, labels=True, overwrite=overwrite)
            print_line(f"Wrote {labels_to}: labels of {counted(count, 'object')}")
        if count == 0:
            print_line(
                "warning: no object was found; if the image has objects, lower --threshold or --min-size, and check the map"
            )
        yield found
    finally:
        discard(folder)


def _bytes(memory: str) -> int:
    try:
        return parse_size(memory)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--memory") from error


def write_all(
    labels: "xr.DataArray",
    outputs: Sequence[Path],
    image: "xr.DataArray | None",
    table: Table,
    overwrite: bool,
) -> None:
    """Write the objects to each of the files."""
    from im2im_zoo.cli.evaluate import with_labels
    from im2im_zoo.images import open_image
    from im2im_zoo.objects import write_objects

    told: set[str] = set()

    def report(note: str) -> None:
        if note not in told:
            print_line(note)
        told.add(note)

    parents = None if table.parents is None else open_image(with_labels(table.parents), labels=True)
    for output in outputs:
        count = write_objects(
            labels,
            output,
            image,
            overwrite=overwrite,
            measure="all" if table.measure == "all" else "basic",
            exclude_border=table.exclude_border,
            parents=parents,
            report=report,
        )
        print_line(f"Wrote {output}: {counted(count, 'object')}")


def parse_thresholding(
    threshold: float | None,
    of_class: str | None,
    split_touching: bool,
    neck: float | None,
    fill_holes: bool,
    min_size: str | None,
) -> "Thresholding":
    """Return the options of finding objects in a map; flags that are not set are not given."""
    from im2im_zoo.instances.thresholding import Thresholding

    if neck is not None and not split_touching:
        raise typer.BadParameter("add --split-touching, or leave this out", param_hint="--neck")
    return Thresholding(threshold, of_class, split_touching or None, neck, fill_holes or None, min_size)
