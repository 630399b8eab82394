"""MRC: volumes and stacks of electron microscopy, read where their voxels lie, through mrcfile."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import MappedSource, Source
from im2im_zoo.images.metadata import ImageMetadata, known, micrometres, positive
from im2im_zoo.images.optional_library import import_reader

# Number by which IMOD marks its files, before its flags.
_IMOD_STAMP = 1146047817
_SPACE: dict[int, AxisName] = {1: "x", 2: "y", 3: "z"}


class Mrc(ImageFormat):
    """MRC (Cheng et al. 2015, doi:10.1016/j.jsb.2015.04.002)."""

    name = "MRC"
    reads = (".mrc", ".mrcs", ".map", ".rec")
    extra = "mrc"

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open a volume, a plane, or a stack of images whose first axis the header does not name."""
        mrcfile = import_reader("mrcfile", "mrc", path, "MRC")
        with warnings.catch_warnings():
            # A volume may have more bytes behind its voxels.
            warnings.simplefilter("ignore", RuntimeWarning)
            opened = mrcfile.mmap(path, mode="r")
        with opened as file:
            data, header = file.data, file.header
            if data.dtype.kind not in "iuf":
                raise ImageError(
                    f"{path}: has the MRC mode {int(header.mode)}, which is not read; save it as float32"
                )
            if data.ndim not in (2, 3):
                raise ImageError(
                    f"{path}: is a stack of volumes, which is not read; save each volume as a file"
                )
            order = [_SPACE.get(int(header[axis])) for axis in ("maps", "mapr", "mapc")]
            names = tuple(order) if len(set(order)) == 3 and None not in order else ("z", "y", "x")
            is_stack = data.ndim == 3 and file.is_image_stack()
            if is_stack:
                names = (None, "y", "x")
            names = names[-data.ndim :]
            sizes = {
                a: positive(micrometres(float(file.voxel_size[a]), "angstrom")) for a in "xyz" if a in names
            }
            found = tuple(name for name in names if name is not None)
            metadata = ImageMetadata(
                found if len(found) == data.ndim else None,
                "its header",
                partial_axes=names,
                axes_note="is a stack of images by its header (ISPG 0), and no volume" if is_stack else "",
                pixel_size_um=known(**sizes),
            )
            offset = int(data.offset) if isinstance(data, np.memmap) else 0
            dtype = np.dtype("uint8") if _has_unsigned_bytes(header) else data.dtype
            return MappedSource(path, tuple(map(int, data.shape)), dtype, offset), metadata


def _has_unsigned_bytes(header: Any) -> bool:
    """Return whether mode 0 means unsigned bytes, as in files of IMOD that do not set the flag for signed ones."""
    stamp, flags = np.frombuffer(header.extra2.tobytes()[40:48], header.mode.dtype)
    return int(header.mode) == 0 and int(stamp) == _IMOD_STAMP and not int(flags) & 1
