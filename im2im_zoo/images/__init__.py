"""Images as lazy xarray: open and write OME-Zarr, OME-TIFF, TIFF, `.npy`, PNG; the rest is read through bioio."""

from im2im_zoo.images.metadata import pixel_size_um
from im2im_zoo.images.open import ImageSuffixes, image_suffixes, open_image
from im2im_zoo.images.plate import plate_images
from im2im_zoo.images.write import create_image, write_image
from im2im_zoo.images.writer import ImagePart, ImageWriter

__all__ = [
    "ImagePart",
    "ImageSuffixes",
    "ImageWriter",
    "create_image",
    "image_suffixes",
    "open_image",
    "pixel_size_um",
    "plate_images",
    "write_image",
]
