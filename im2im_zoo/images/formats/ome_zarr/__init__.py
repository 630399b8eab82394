"""OME-Zarr 0.4 and 0.5, on the disk and, to read, on the web; also plain zarr arrays and the axes of earlier versions, to read."""

from pathlib import Path

from im2im_zoo.images.address import Address
from im2im_zoo.images.formats.ome_zarr.read import read_ome_zarr, read_zipped_ome_zarr
from im2im_zoo.images.image_format import ImageFormat
from im2im_zoo.images.lazy import Source
from im2im_zoo.images.metadata import ImageMetadata
from im2im_zoo.images.target import NewImage, Storage, Target


class OmeZarr(ImageFormat):
    """OME-Zarr, written region by region with its pyramid."""

    name = "OME-Zarr"
    reads = writes = (".ome.zarr", ".zarr")
    keeps = frozenset(
        {"axes", "pixel_size_um", "translation_um", "channel_names", "time_step_s", "attributes"}
    )
    is_folder = True
    marks = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    holds_labels = True
    on_web = True

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open a multiscale group at its full resolution, or an array: a level of a multiscale, or a plain one."""
        return read_ome_zarr(path)

    def open_address(self, address: Address) -> tuple[Source, ImageMetadata]:
        """Open an OME-Zarr on the web, of which only the chunks that are needed are fetched."""
        return read_ome_zarr(address)

    def create(self, path: Path, image: NewImage, storage: Storage) -> Target:
        """Return the writer of an OME-Zarr of the version that `storage` names."""
        from im2im_zoo.images.formats.ome_zarr.write import OmeZarrTarget

        return OmeZarrTarget(path, image, storage)


class ZippedOmeZarr(ImageFormat):
    """OME-Zarr within a zip, read where it is: only the chunks that are needed are unpacked, in memory."""

    name = "zipped OME-Zarr"
    reads = (".ozx", ".ome.zarr.zip", ".zarr.zip")
    by_path = True

    def open(self, path: Path, number: int | None) -> tuple[Source, ImageMetadata]:
        """Open the image that was zipped."""
        return read_zipped_ome_zarr(path)

    def open_within(self, path: Path, inner: str) -> tuple[Source, ImageMetadata]:
        """Open a level, a label image, or an image of a plate or container."""
        return read_zipped_ome_zarr(path, inner)
