"""Pictures of a package for a page about it: its covers as they are, and its test tensors as grey images. Judges nothing."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from im2im_zoo.core.array_file import read_npy
from im2im_zoo.core.errors import Im2ImError
from im2im_zoo.core.picture_file import read_picture_size
from im2im_zoo.package import Package
from im2im_zoo.packaging.validation.findings import Picture

_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif"}
_COVER_BYTES = 4_000_000
_SIDE = 512


def pictures_of(package: Package) -> list[Picture]:
    """The covers and the test tensors that can be shown; what cannot is left out, and the findings say why."""
    found = []
    covers = package.raw.get("covers")
    for cover in covers if isinstance(covers, list) else ():
        source = str(cover.get("source") if isinstance(cover, Mapping) else cover)
        try:
            path = package.path(source)
            kind = _TYPES.get(path.suffix.lower())
            if kind and path.stat().st_size <= _COVER_BYTES:
                read_picture_size(path)
                found.append(Picture(f"Cover: {source}", kind, path.read_bytes()))
        except (Im2ImError, OSError, ValueError):
            continue
    for role, tensors in (("Test input", package.inputs), ("Test output", package.outputs)):
        for tensor in tensors:
            try:
                array = read_npy(package.path(tensor.test_tensor))
                title = f"{role} {tensor.id}: {'x'.join(map(str, array.shape))} {array.dtype}"
                found.append(Picture(title, "image/png", _png(array, [str(a.type) for a in tensor.axes])))
            except (Im2ImError, OSError, ValueError):
                continue
    return found


def _png(array: NDArray[Any], kinds: list[str]) -> bytes:
    """The middle plane of an array, its last two space axes, from its 0.5th to its 99.5th percentile."""
    from PIL import Image

    if len(kinds) != array.ndim or array.size == 0:
        raise ValueError("the array has other axes than the RDF says")
    space = [i for i, kind in enumerate(kinds) if kind == "space"][-2:]
    if len(space) < 2:
        raise ValueError("there is no plane to show")
    middle = tuple(
        slice(None) if i in space else (n // 2 if kind == "space" else 0)
        for i, (n, kind) in enumerate(zip(array.shape, kinds, strict=True))
    )
    plane = np.nan_to_num(np.asarray(array[middle], dtype=np.float64))
    low, high = np.percentile(plane, (0.5, 99.5))
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    grey = np.clip((plane - low) / ((high - low) or 1.0), 0, 1) * 255
    image = Image.fromarray(grey.round().astype(np.uint8))
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, format="png", optimize=True)
    return buffer.getvalue()
