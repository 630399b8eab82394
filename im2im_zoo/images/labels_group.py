"""Label images within an OME-Zarr: `cells.ome.zarr/labels/nuclei`. Finds and lists them; writes no voxel."""

from pathlib import Path

from im2im_zoo.core.atomic import remove_leftovers, write_json
from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.finite_json import read_json_object
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
    if not is_zarr(image / "labels"):
        (image / "labels").mkdir(exist_ok=True)
        _set_names(image, [])


def list_label(path: Path) -> None:
    """Add a label image that is at its path to the list of its group, unless it is there."""
    image = path.parent.parent
    make_labels_group(image)
    remove_leftovers(_names_file(image))
    names = _names(image)
    if path.name not in names:
        _set_names(image, [*names, path.name])


def _names_file(image: Path) -> Path:
    """Return the file that lists an image's labels: of zarr 3 the group itself, of zarr 2 its attributes."""
    return image / "labels" / ("zarr.json" if (image / "zarr.json").is_file() else ".zattrs")


def _names(image: Path) -> list[str]:
    found = read_json_object(_names_file(image))
    return [str(name) for name in ome_of(found.get("attributes", found)).get("labels") or ()]


def _set_names(image: Path, names: list[str]) -> None:
    """Write the list of an image's labels in one step, so that it is there whole even after a power cut."""
    file = _names_file(image)
    found = read_json_object(file)
    if file.name == ".zattrs":
        group = file.with_name(".zgroup")
        if not group.is_file():
            write_json(group, {"zarr_format": 2}, durable=True)
        write_json(file, {**found, "labels": names}, durable=True)
        return
    attributes = found.get("attributes", {})
    ome = {"version": version_of_image(image), **attributes.get("ome", {}), "labels": names}
    group_metadata = {"zarr_format": 3, "node_type": "group", **found}
    write_json(file, {**group_metadata, "attributes": {**attributes, "ome": ome}}, durable=True)
