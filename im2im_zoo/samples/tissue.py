"""A real stained section of colon glands, haematoxylin and DAB (it comes inside scikit-image), and its stains apart.

The stains come apart by colour deconvolution (Ruifrok and Johnston 2001): an estimate, not a second staining.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.sample_set import Array


def glands() -> tuple[Array, Array]:
    """The section, (3, 512, 512) uint8, and where DAB, smoothed over 5 pixels, exceeds the threshold of Li and Lee (1993): gland epithelium."""
    from skimage.filters import threshold_li

    section, stains = _section()
    brown = ndimage.gaussian_filter(stains[..., 2], 5)
    return np.moveaxis(section, -1, 0), (brown > threshold_li(brown)).astype(np.uint8)  # type: ignore[no-untyped-call]


def haematoxylin_alone() -> tuple[Array, Array]:
    """The section, and what it would be with haematoxylin alone, (3, 512, 512) uint8."""
    from skimage.color import hed2rgb

    section, stains = _section()
    alone = hed2rgb(stains * np.array([1.0, 0.0, 0.0]))
    return np.moveaxis(section, -1, 0), np.moveaxis((255 * alone).round().astype(np.uint8), -1, 0)


def _section() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Red, green and blue, and the amounts of haematoxylin, eosin and DAB, channels last."""
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    section: NDArray[np.uint8] = immunohistochemistry()  # type: ignore[no-untyped-call]
    return section, rgb2hed(section)
