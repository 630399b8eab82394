"""Transmitted light, simulated from the fluorescence of nuclei: transport of intensity through a phase object.

At a distance z from focus, a thin phase object shows the intensity 1 - z k laplacian(phase) (Teague 1983), blurred with
z. This demonstrates a recipe; it is not a model of light in a cell.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.nuclei import load_labelled, scale_brightness, to_counts
from im2im_zoo.samples.sample_set import Array

_BLUR = 0.3  # pixels of blur for each plane away from focus


def simulate_focus_2d() -> tuple[Array, Array]:
    """Simulate five planes of focus around a thin layer of nuclei.

    Returns:
        The planes, (5, 512, 512), and the fluorescence, (512, 512).
    """
    clean = load_labelled(2)[0]
    phase = np.clip(scale_brightness(clean), 0, 1)
    curvature = ndimage.laplace(ndimage.gaussian_filter(phase, 1.0))
    random = np.random.default_rng(0)
    planes = [
        ndimage.gaussian_filter(1 - z * curvature, _BLUR * abs(z)) + random.normal(0, 0.02, clean.shape)
        for z in np.linspace(-3, 3, 5)
    ]
    return to_counts(np.stack(planes) * 10000), clean


def simulate_focus_3d(absorption: float = 0.0) -> tuple[Array, Array]:
    """Simulate a stack through a volume of nuclei; planes up to 3 away contribute to each plane.

    Args:
        absorption: share of the light that the brightest nuclei absorb, besides shifting its phase.

    Returns:
        The stack and the fluorescence, both (31, 61, 57).
    """
    clean = load_labelled(3)[0]
    phase = ndimage.gaussian_filter(np.clip(scale_brightness(clean), 0, 1), 1.0)
    seen = 1 - absorption * phase
    for distance in range(-3, 4):
        seen -= 0.5 * distance * _shift_curvature(distance, phase)
    seen += np.random.default_rng(0).normal(0, 0.02, clean.shape)
    return to_counts(seen * 10000), clean


def _shift_curvature(distance: int, phase: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return for each plane the out-of-focus curvature of the plane `distance` below it (the outermost is repeated)."""
    planes = np.clip(np.arange(len(phase)) - distance, 0, len(phase) - 1)
    curvature = sum(ndimage.laplace(phase[planes], mode="nearest", axes=(axis,)) for axis in (1, 2))
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(curvature, _BLUR * abs(distance), axes=(1, 2))
    return blurred
