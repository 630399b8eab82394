"""Kinds of zarr by their files and metadata, and the images within one that is none itself. Reads no voxel."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from im2im_zoo.images.address import Place, place_within
from im2im_zoo.images.target import Stored

MARKS = ("zarr.json", ".zgroup", ".zarray")
# Beginnings of the names of files that hold no voxels.
METADATA = ("zarr.json", ".z")
_LISTED = 20


def is_zarr(path: Path) -> bool:
    """Return whether a folder is a zarr group or array."""
    return any((path / mark).is_file() for mark in MARKS)


def stored_in(image: Path) -> Stored:
    """Return the files that hold the voxels of an image and its pyramid, without those of its label images."""
    files, size, left = 0, 0, [str(image)]
    while left:
        folder = left.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if entry.name != "labels" or Path(folder) != image:
                        left.append(entry.path)
                elif not entry.name.startswith(METADATA) and not entry.name.endswith(".partial"):
                    files, size = files + 1, size + entry.stat().st_size
    return Stored(files, size)


def ome_of(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the OME metadata: under "ome" since 0.5, at the top before."""
    inner = attributes.get("ome")
    return inner if isinstance(inner, Mapping) else attributes


def describe_non_image(path: Place, ome: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """Return what a zarr that is no image is, and which images are within, for a message.

    Args:
        path: the zarr.
        ome: its OME metadata.
        names: of the files of the zip that it is within, if it is.
    """
    kind = next(
        (
            word
            for key, word in (
                ("plate", "is a plate of wells"),
                ("well", "is a well of a plate"),
                ("bioformats2raw.layout", "is a container of several images (bioformats2raw)"),
                ("labels", "is a group of label images"),
            )
            if key in ome
        ),
        "is a zarr group without image metadata (multiscales)",
    )
    within = [str(path / name) for name in _images_within(path, ome)]
    if names:
        archive = next(p for p in (path, *path.parents) if Path(str(p)).is_file())
        groups = (
            PurePosixPath(name).parent.as_posix()
            for name in names
            if name.endswith(("zarr.json", ".zarray", ".zgroup"))
        )
        within = [f"{archive}:/{group}" for group in sorted(set(groups)) if group != "."]
    if not within:
        unknown = (
            "no image is within"
            if names or isinstance(path, Path)
            else "a web server does not list what is within"
        )
        return f"{path}: {kind}, and {unknown}; give the place of an image"
    more = f" and {len(within) - _LISTED} more" if len(within) > _LISTED else ""
    return f"{path}: {kind}; open one of the images within: {', '.join(within[:_LISTED])}{more}"


def _images_within(path: Place, ome: Mapping[str, Any]) -> list[str]:
    """Return the paths of images below a group: as its metadata lists them, else all that are found."""
    import zarr

    if "labels" in ome:
        return [str(name) for name in ome["labels"]]
    if "well" in ome:
        return [str(i["path"]) for i in ome["well"].get("images", ())]
    if "plate" in ome:
        wells = [str(w["path"]) for w in ome["plate"].get("wells", ())]
        if not isinstance(path, Path):
            return wells
        found: list[str] = []
        for well in wells:
            place_within(path, well)
            # Enough for a message: a plate can have thousands of wells.
            if is_zarr(path / well) and len(found) <= _LISTED:
                inner = ome_of(dict(zarr.open_group(path / well, mode="r").attrs)).get("well", {})
                found += [f"{well}/{i['path']}" for i in inner.get("images", ())]
            else:
                found.append(well)
        return found
    if not isinstance(path, Path):
        return []
    marks = sorted(
        {m.parent for depth in ("*", "*/*", "*/*/*") for name in MARKS for m in path.glob(f"{depth}/{name}")}
    )
    nodes = [(m, zarr.open(m, mode="r")) for m in marks[:200]]
    groups = [m for m, n in nodes if isinstance(n, zarr.Group) and "multiscales" in ome_of(dict(n.attrs))]
    arrays = [m for m, n in nodes if isinstance(n, zarr.Array) and not any(g in m.parents for g in groups)]
    return [m.relative_to(path).as_posix() for m in [*groups, *arrays]]
