"""Images as lazy xarray: open and write OME-Zarr, OME-TIFF, TIFF, `.npy`, PNG; others are read through bioio, zarrs on the web over https.

Each file format is a class in `im2im_zoo.images.formats`; see docs/adding-a-format.md.
"""

from im2im_zoo.images.address import Address, Place, as_place
from im2im_zoo.images.formats.ome_zarr.plate import plate_images
from im2im_zoo.images.formats.ome_zarr.read import web_state
from im2im_zoo.images.joined import join_channels, sources_of
from im2im_zoo.images.memory import memory_image
from im2im_zoo.images.metadata import pixel_size_um
from im2im_zoo.images.missing import describe_missing_chunks, missing_chunks
from im2im_zoo.images.names import stem_of
from im2im_zoo.images.open import open_image, select_channels
from im2im_zoo.images.registry import format_of, image_formats, is_image_file
from im2im_zoo.images.write import create_image, write_image

__all__ = [
    "Address",
    "Place",
    "as_place",
    "create_image",
    "describe_missing_chunks",
    "format_of",
    "image_formats",
    "is_image_file",
    "join_channels",
    "memory_image",
    "missing_chunks",
    "open_image",
    "pixel_size_um",
    "plate_images",
    "select_channels",
    "sources_of",
    "stem_of",
    "web_state",
    "write_image",
]
