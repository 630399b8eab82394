"""`im2im-zoo objects`, and the files of `im2im-zoo predict --objects`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from im2im_zoo.cli.console import print_line
from im2im_zoo.core.sizes import counted

if TYPE_CHECKING:
    import xarray as xr


def run(
    labels: str,
    outputs: Sequence[Path],
    image: str | None,
    axes: str | None,
    image_axes: str | None,
    overwrite: bool,
) -> None:
    """Measure the objects of a label image, and write the files."""
    from im2im_zoo.cli.evaluate import with_labels
    from im2im_zoo.images import open_image
    from im2im_zoo.objects import check_objects_path

    for output in outputs:
        check_objects_path(output, overwrite=overwrite)
    opened = open_image(with_labels(labels), axes=axes, labels=True)
    write_all(opened, outputs, None if image is None else open_image(image, axes=image_axes), overwrite)


def write_all(
    labels: "xr.DataArray", outputs: Sequence[Path], image: "xr.DataArray | None", overwrite: bool
) -> None:
    """Write the objects to each of the files."""
    from im2im_zoo.objects import write_objects

    for output in outputs:
        count = write_objects(labels, output, image, overwrite=overwrite)
        print_line(f"Wrote {output}: {counted(count, 'object')}")
