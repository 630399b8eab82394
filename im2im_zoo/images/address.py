"""Paths of images, and addresses of OME-Zarrs on the web. Fetches nothing."""

import re
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.http import is_fetchable
from im2im_zoo.core.inner_path import is_within, leads_out

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class Address(PurePosixPath):
    """Address of a zarr, `https://host/image.ome.zarr`, with the name, parents and joining of a path."""

    __slots__ = ()

    def __str__(self) -> str:
        # Of the two slashes a path keeps one.
        return re.sub(r"^(https?):/(?!/)", r"\1://", super().__str__())


Place: TypeAlias = Path | Address


def as_place(source: str | Path | Address) -> Place:
    """Return the source as an address if it is one, else as a path.

    Raises:
        ImageError: the address is neither https nor http of this machine, or has a query.
    """
    if isinstance(source, Path | Address):
        return source
    if not _SCHEME.match(source):
        return Path(source)
    if not is_fetchable(source, local_http=True):
        raise ImageError(
            f"{source}: only https addresses are read (s3:// and gs:// have one, too; http only of this machine): give that, or "
            "download the image"
        )
    if "?" in source or "#" in source:
        raise ImageError(
            f"{source}: has a query or a fragment, behind which no zarr can be: give the address of its folder"
        )
    return Address(source.rstrip("/"))


def place_within(image: Place, text: str) -> Place:
    """Return the place of a part of an image that its metadata name.

    Raises:
        ImageError: it leads out of the image.
    """
    place = image / text
    if leads_out(text) or (isinstance(image, Path) and not is_within(Path(place), image)):
        raise ImageError(
            f"{image}: its metadata name {text!r}, which is outside of it and is not read; get the image from its source again"
        )
    return place
