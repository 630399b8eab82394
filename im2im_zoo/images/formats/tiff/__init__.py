"""TIFF: OME-TIFF, ImageJ hyperstacks, tifffile's own, Zeiss's LSM and plain ones are read; the first three are written."""

from pathlib import Path

from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import Source
from im2im_zoo.images.metadata import ImageMetadata
from im2im_zoo.images.target import NewImage, Storage, Target


class Tiff(ImageFormat):
    """TIFF, written region by region without compression."""

    name = "TIFF"
    reads = (".ome.tif", ".ome.tiff", ".tif", ".tiff", ".btf", ".tf8", ".lsm")
    writes = (".ome.tif", ".ome.tiff", ".tif", ".tiff")
    keeps = frozenset({"axes", "pixel_size_um", "channel_names", "time_step_s", "attributes"})
    several = True

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open one image of a TIFF; thumbnails and labels of slides beside it do not count."""
        from im2im_zoo.images.formats.tiff.read import read_tiff

        return read_tiff(path, number)

    def create(self, path: Path, image: NewImage, storage: Storage) -> Target:
        """Return the writer of a TIFF, in the convention that its suffix and the image choose."""
        from im2im_zoo.images.flat_file import FlatTarget
        from im2im_zoo.images.formats.tiff.write import TiffForm

        return FlatTarget(TiffForm(path, image))
