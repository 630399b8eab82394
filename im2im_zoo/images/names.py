"""Names of images, by their paths or addresses. Opens nothing."""

from im2im_zoo.images.address import Place
from im2im_zoo.images.registry import is_folder_path, suffix_of


def stem_of(path: Place) -> str:
    """Return the name without the suffix of its format: `a` for `a.tif`, `a.ome.tif` and `a.ome.zarr`.

    An image within a zarr is named by its way there: `plate-A-1-0` for `plate.ome.zarr/A/1/0`.
    """
    outer = outer_zarr(path)
    if outer is not None:
        return "-".join((stem_of(outer), *path.relative_to(outer).parts))
    return path.name[: len(path.name) - len(suffix_of(path))]


def outer_zarr(path: Place) -> Place | None:
    """Return the zarr that an image is within; None if it is in none."""
    return next((parent for parent in path.parents if is_folder_path(parent)), None)
