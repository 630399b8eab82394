"""Real fluorescence of nuclei with their labels, 2D and 3D, and what a worse microscope would have seen of them."""

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.core.resources import sample_image
from im2im_zoo.samples.sample_set import Array


def labelled(dimensions: int) -> tuple[Array, Array]:
    """Fluorescence and instance labels, (512, 512) or (31, 61, 57), uint16."""
    return _image("img", dimensions), _image("mask", dimensions)


def labels_first(dimensions: int) -> tuple[Array, Array]:
    """Instance labels and the fluorescence that they were drawn in."""
    image, labels = labelled(dimensions)
    return labels, image


def drawn_by_several() -> tuple[Array, Array]:
    """Fluorescence, (512, 512), and a mask of its nuclei: each drawn by one of three people, at random, seeded.

    The people are simulated: one draws as the labels are, one leaves a margin of two pixels out, one takes it in.
    """
    image, labels = labelled(2)
    margins = np.random.default_rng(0).choice([-2, 0, 2], labels.max() + 1)
    mask = np.zeros(labels.shape, np.uint8)
    for number, place in enumerate(ndimage.find_objects(np.pad(labels, 3)), 1):
        if place is None:
            continue
        around = tuple(slice(max(0, p.start - 6), max(0, p.stop)) for p in place)
        inside = labels[around] == number
        distance = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        mask[around] |= (distance + margins[number] > 0).astype(np.uint8)
    return image, mask


def noisy() -> tuple[Array, Array]:
    """Photon noise at about 4 photons in a bright voxel and read noise of one photon, seeded; and the volume itself."""
    clean = _image("img", 3)
    random = np.random.default_rng(0)
    seen = random.poisson(relative(clean) * 4) + random.normal(0, 1, clean.shape)
    return counts(100 + 50 * seen), clean


def noisy_counts(dimensions: int, photons: float, lines: float = 0.0) -> tuple[Array, Array]:
    """Photon noise and read noise of one photon, seeded; and the same counts without noise: the two share one scale.

    What is without noise is the real image with its own noise smoothed (sigma 0.7).

    Args:
        dimensions: of the image, 2 or 3.
        photons: in a bright voxel; each is 50 counts, above an offset of 500 which no noise falls below.
        lines: standard deviation, in photons, of further noise that each voxel shares with those up to 4 before and behind
            it along x, as of a detector that is slower than the scan.
    """
    bright = ndimage.gaussian_filter(relative(_image("img", dimensions)), 0.7) * photons
    random = np.random.default_rng(0)
    seen = random.poisson(bright) + random.normal(0, 1, bright.shape)
    if lines:
        # The mean of five has a fifth of their variance.
        seen += ndimage.uniform_filter1d(random.normal(0, lines * 5**0.5, bright.shape), 5)
    return counts(500 + 50 * seen), counts(500 + 50 * bright)


def blurred() -> tuple[Array, Array]:
    """A wide, long point spread function (Gaussian, sigma 3 planes and 2.5 pixels) with photon noise; and the sharp volume.

    The sharp volume is the real one with its own noise smoothed (sigma 0.7), in counts of the same scale.
    """
    sharp = ndimage.gaussian_filter(relative(_image("img", 3)), 0.7)
    photons = ndimage.gaussian_filter(sharp, (3, 2.5, 2.5)) * 200
    random = np.random.default_rng(0)
    return counts(100 + 10 * random.poisson(photons)), counts(100 + 2000 * sharp)


def relative(image: Array) -> NDArray[np.float32]:
    """Brightness from 0 at the first percentile, cut there, to 1 at the 99.8th."""
    values = image.astype(np.float32)
    low, high = np.percentile(values, (1, 99.8))
    scaled: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, None)
    return scaled


def counts(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """As a 16-bit camera would give them."""
    return values.clip(0, 65535).astype(np.uint16)


def _image(kind: str, dimensions: int) -> Array:
    image: Array = tifffile.imread(sample_image(f"{kind}{dimensions}d.tif"))
    return image
