"""bioimage.io packages: opening them, from disk or by address, and what their RDF and test tensors hold."""

from im2im_zoo.core.hashing import sha256
from im2im_zoo.package.open import Package, open_package

__all__ = ["Package", "open_package", "sha256"]
