"""Label images within an OME-Zarr: `cells.ome.zarr/labels/nuclei`. Finds and lists them; writes no voxel."""

from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.formats.ome_zarr.contents import is_zarr, ome_of
from im2im_zoo.images.registry import format_of, is_folder_path


def image_of_label(path: Path) -> Path | None:
    """Return the OME-Zarr that a path is a label image of; None if it is the path of something else."""
    image = path.parent.parent
    if path.parent.name != "labels" or not (is_zarr(image) or is_folder_path(image)):
        return None
    # A file beside the label images is what its name says.
    own = format_of(path, "write")
    return image if own is None or own.is_folder else None


def version_of_image(image: Path) -> str:
    """Return the version of the OME-Zarr that labels are to be put into.

    Raises:
        ImageError: the OME-Zarr is missing, or no image.
    """
    import zarr

    if not is_zarr(image):
        raise ImageError(f"{image}: there is no such OME-Zarr to put labels into; write the image first")
    node = zarr.open(image, mode="r")
    ome = ome_of(dict(node.attrs))
    multiscales = ome.get("multiscales")
    if not isinstance(node, zarr.Group) or not multiscales:
        raise ImageError(f"{image}: is no OME-Zarr image (it has no multiscales), so it takes no labels")
    if node.metadata.zarr_format == 3:
        return str(ome.get("version", "0.5"))
    return str(multiscales[0].get("version", "0.4"))


def make_labels_group(image: Path) -> None:
    """Create the group of an image's labels, if it is missing. Nothing of the image itself is changed."""
    import zarr

    if not is_zarr(image / "labels"):
        is_new = (image / "zarr.json").is_file()
        group = zarr.open_group(image / "labels", mode="a", zarr_format=3 if is_new else 2)
        _set_names(image, group, [])


def list_label(path: Path) -> None:
    """Add a label image that is at its path to the list of its group."""
    import zarr

    group = zarr.open_group(path.parent, mode="r+")
    names = [str(name) for name in ome_of(dict(group.attrs)).get("labels") or ()]
    if path.name not in names:
        _set_names(path.parent.parent, group, [*names, path.name])


def _set_names(image: Path, group: Any, names: list[str]) -> None:
    if group.metadata.zarr_format == 3:
        before = dict(group.attrs).get("ome") or {}
        group.attrs["ome"] = {"version": version_of_image(image), **before, "labels": names}
    else:
        group.attrs["labels"] = names
