"""bioimage.io packages: opening from disk or by address, the RDF and the test tensors."""

from im2im_zoo.package.open import Package, open_package

__all__ = ["Package", "open_package"]
