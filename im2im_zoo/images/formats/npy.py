"""`.npy`: numpy's own file of one array. It states its shape and data type, and nothing of axes, sizes and names."""

from pathlib import Path

import numpy as np

from im2im_zoo.core.axes import AxisName
from im2im_zoo.core.errors import ImageError
from im2im_zoo.images.flat_file import FlatFile, FlatTarget
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import MappedSource, Source
from im2im_zoo.images.metadata import ImageMetadata
from im2im_zoo.images.target import NewImage, Storage, Target, check_same


class Npy(ImageFormat):
    """`.npy`: read where its voxels lie, written region by region."""

    name = ".npy"
    reads = writes = (".npy",)

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open a `.npy`; of two dimensions the axes are y, x. Pickled objects are refused."""
        # numpy's own reader checks the header and refuses objects; only the place of the voxels is kept.
        try:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            if "Python objects" not in str(error):
                raise
            raise ImageError(
                f"{path}: holds Python objects, which are no image; save it as integers or floats"
            ) from error
        if not isinstance(mapped, np.memmap) or mapped.dtype.kind not in "biuf":
            raise ImageError(
                f"{path}: holds {mapped.dtype} values, which are no image; save it as integers or floats"
            )
        order = "F" if mapped.flags.f_contiguous and not mapped.flags.c_contiguous else "C"
        source = MappedSource(path, mapped.shape, mapped.dtype, mapped.offset, order)
        axes: tuple[AxisName, ...] | None = ("y", "x") if mapped.ndim == 2 else None
        return source, ImageMetadata(axes=axes, axes_stated_by="its two dimensions")

    def create(self, path: Path, image: NewImage, storage: Storage) -> Target:
        """Return the writer of a `.npy`, which takes any axes and data types."""
        return FlatTarget(NpyForm(image))


class NpyForm:
    """Layout of a new `.npy`, its axes in the caller's order."""

    def __init__(self, image: NewImage) -> None:
        self._image = image
        self.axes = image.axes

    def create(self, partial: Path) -> None:
        """Create the file, its voxels zero."""
        header = {
            "descr": np.lib.format.dtype_to_descr(self._image.dtype),
            "fortran_order": False,
            "shape": self._image.shape,
        }
        with partial.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + self._image.nbytes)

    def voxels(self, partial: Path) -> FlatFile:
        """Return where the voxels of a created file are.

        Raises:
            ImageError: the file is damaged, or of another image.
        """
        try:
            with partial.open("rb") as file:
                np.lib.format.read_magic(file)
                shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
                offset = file.tell()
        except ValueError as error:
            raise ImageError(f"{partial}: is damaged ({error}); remove it to start over") from error
        found = {"shape": shape, "dtype": dtype.name, "order": "F" if fortran else "C"}
        wanted = {"shape": self._image.shape, "dtype": self._image.dtype.name, "order": "C"}
        check_same(partial, found, wanted)
        return FlatFile(partial, offset, self._image.shape, self._image.dtype)
