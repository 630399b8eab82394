"""Real fluorescence of nuclei with their labels, 2D and 3D, and simulations of noise and blur."""

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.core.resources import fetch_sample_image
from im2im_zoo.samples.sample_set import Array


def load_labelled(dimensions: int) -> tuple[Array, Array]:
    """Load the fluorescence and the instance labels, (512, 512) or (31, 61, 57), uint16."""
    return _read_image("img", dimensions), _read_image("mask", dimensions)


def load_labels_first(dimensions: int) -> tuple[Array, Array]:
    """Load the instance labels and the fluorescence, in this order."""
    image, labels = load_labelled(dimensions)
    return labels, image


def draw_by_several() -> tuple[Array, Array]:
    """Simulate a mask of nuclei annotated by three experts, one chosen at random (seeded) for each nucleus.

    One draws the labels as they are, one 2 pixels smaller, one 2 pixels larger.

    Returns:
        The fluorescence and the mask, (512, 512).
    """
    image, labels = load_labelled(2)
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


def add_noise() -> tuple[Array, Array]:
    """Add photon noise (about 4 photons in a bright voxel) and read noise (one photon) to the volume, seeded.

    Returns:
        The noisy and the original volume.
    """
    clean = _read_image("img", 3)
    random = np.random.default_rng(0)
    seen = random.poisson(scale_brightness(clean) * 4) + random.normal(0, 1, clean.shape)
    return to_counts(100 + 50 * seen), clean


def simulate_photon_noise(dimensions: int, photons: float, lines: float = 0.0) -> tuple[Array, Array]:
    """Simulate photon noise and read noise (one photon), seeded.

    The image without noise is the real one with its own noise smoothed (sigma 0.7).

    Args:
        dimensions: of the image, 2 or 3.
        photons: in a bright voxel; each is 50 counts, above an offset of 500, below which no noise falls.
        lines: standard deviation, in photons, of additional noise that is correlated over 4 voxels in both directions along
            x, as from a detector that is slower than the scan.

    Returns:
        The image with and without noise, in counts of the same scale.
    """
    bright = ndimage.gaussian_filter(scale_brightness(_read_image("img", dimensions)), 0.7) * photons
    random = np.random.default_rng(0)
    seen = random.poisson(bright) + random.normal(0, 1, bright.shape)
    if lines:
        # The mean of five has a fifth of their variance.
        seen += ndimage.uniform_filter1d(random.normal(0, lines * 5**0.5, bright.shape), 5)
    return to_counts(500 + 50 * seen), to_counts(500 + 50 * bright)


def simulate_blur() -> tuple[Array, Array]:
    """Simulate a wide, long point spread function (Gaussian, sigma 3 planes and 2.5 pixels) with photon noise.

    Returns:
        The blurred and the sharp volume, in counts of the same scale. The sharp one is the real one with its own noise
        smoothed (sigma 0.7).
    """
    sharp = ndimage.gaussian_filter(scale_brightness(_read_image("img", 3)), 0.7)
    photons = ndimage.gaussian_filter(sharp, (3, 2.5, 2.5)) * 200
    random = np.random.default_rng(0)
    return to_counts(100 + 10 * random.poisson(photons)), to_counts(100 + 2000 * sharp)


def scale_brightness(image: Array) -> NDArray[np.float32]:
    """Scale brightness to 0 at the first percentile, clipped below, and 1 at the 99.8th."""
    values = image.astype(np.float32)
    low, high = np.percentile(values, (1, 99.8))
    scaled: NDArray[np.float32] = np.clip((values - low) / (high - low), 0, None)
    return scaled


def to_counts(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Convert values to the counts of a 16-bit camera."""
    return values.clip(0, 65535).astype(np.uint16)


def _read_image(kind: str, dimensions: int) -> Array:
    image: Array = tifffile.imread(fetch_sample_image(f"{kind}{dimensions}d.tif"))
    return image
