"""Images as lazy xarray: open and write OME-Zarr, OME-TIFF, TIFF, `.npy`, PNG; the rest is read through bioio."""

from im2im_zoo.images.metadata import pixel_size_um
from im2im_zoo.images.open import ImageSuffixes, image_suffixes, open_image

__all__ = ["ImageSuffixes", "image_suffixes", "open_image", "pixel_size_um"]
