"""Paths of the images of an OME-Zarr plate (0.4 and 0.5), from the metadata of plate and wells. Opens none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.address import place_within
from im2im_zoo.images.formats.ome_zarr.contents import ome_of


def plate_images(path: Path) -> list[Path] | None:
    """Return the fields of all wells of a plate, in the order of its metadata; None if the folder is no plate.

    Raises:
        ImageError: the metadata of the plate or of a well are damaged, or a well is missing.
    """
    plate = _metadata(path).get("plate")
    if plate is None:
        return None
    found = []
    try:
        for well in plate["wells"]:
            place = Path(place_within(path, str(well["path"])))
            found += [Path(place_within(place, str(i["path"]))) for i in _metadata(place)["well"]["images"]]
    except (KeyError, TypeError) as error:
        raise ImageError(
            f"{path}: is a plate, but its metadata, or those of a well, lack {error}: export it again"
        ) from error
    return found


def _metadata(path: Path) -> Mapping[str, Any]:
    """Return the OME metadata of a zarr group; {} if it is no group, or has none."""
    for name in ("zarr.json", ".zattrs"):
        try:
            content = json.loads((path / name).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except ValueError as error:
            raise ImageError(f"{path / name}: is damaged ({error}): export the image again") from error
        return ome_of(content.get("attributes", {}) if name == "zarr.json" else content)
    return {}
