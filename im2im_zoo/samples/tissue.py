"""A real section of colon glands, stained with haematoxylin and DAB (from scikit-image), and its separated stains.

The stains are separated by colour deconvolution (Ruifrok and Johnston 2001): an estimate, not a second staining.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.sample_set import Array


def segment_glands() -> tuple[Array, Array]:
    """Segment the gland epithelium: DAB, smoothed (sigma 5 pixels), above the threshold of Li and Lee (1993).

    Returns:
        The section, (3, 512, 512) uint8, and the mask, (512, 512) uint8.
    """
    from skimage.filters import threshold_li

    section, stains = _load_section()
    brown = ndimage.gaussian_filter(stains[..., 2], 5)
    return np.moveaxis(section, -1, 0), (brown > threshold_li(brown)).astype(np.uint8)  # type: ignore[no-untyped-call]


def isolate_haematoxylin() -> tuple[Array, Array]:
    """Render the section with only its haematoxylin.

    Returns:
        The section and the rendered image, both (3, 512, 512) uint8.
    """
    from skimage.color import hed2rgb

    section, stains = _load_section()
    alone = hed2rgb(stains * np.array([1.0, 0.0, 0.0]))
    return np.moveaxis(section, -1, 0), np.moveaxis((255 * alone).round().astype(np.uint8), -1, 0)


def _load_section() -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Load the section in RGB, and its amounts of haematoxylin, eosin and DAB; channels last."""
    from skimage.color import rgb2hed
    from skimage.data import immunohistochemistry

    section: NDArray[np.uint8] = immunohistochemistry()  # type: ignore[no-untyped-call]
    return section, rgb2hed(section)
