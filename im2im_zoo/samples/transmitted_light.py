"""Transmitted light as simulated from the fluorescence of nuclei: transport of intensity through a phase object.

Away from focus by z, a thin phase object shows the intensity 1 - z k laplacian(phase) (Teague 1983), blurred with z. It
shows how a recipe is run, not what light does in a cell.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.nuclei import counts, labelled, relative
from im2im_zoo.samples.sample_set import Array

_BLUR = 0.3  # pixels of blur for each plane away from focus


def through_focus_2d() -> tuple[Array, Array]:
    """Five planes of focus around a thin layer of nuclei, (5, 512, 512), and their fluorescence."""
    clean = labelled(2)[0]
    phase = np.clip(relative(clean), 0, 1)
    curvature = ndimage.laplace(ndimage.gaussian_filter(phase, 1.0))
    random = np.random.default_rng(0)
    planes = [
        ndimage.gaussian_filter(1 - z * curvature, _BLUR * abs(z)) + random.normal(0, 0.02, clean.shape)
        for z in np.linspace(-3, 3, 5)
    ]
    return counts(np.stack(planes) * 10000), clean


def through_focus_3d(absorption: float = 0.0) -> tuple[Array, Array]:
    """A stack through a volume of nuclei, (31, 61, 57), each plane of which sees those up to 3 planes away; and their fluorescence.

    Args:
        absorption: of the light, what the brightest nuclei take beside shifting its phase.
    """
    clean = labelled(3)[0]
    phase = ndimage.gaussian_filter(np.clip(relative(clean), 0, 1), 1.0)
    seen = 1 - absorption * phase
    for distance in range(-3, 4):
        seen -= 0.5 * distance * _curvature_of_the_plane_at(distance, phase)
    seen += np.random.default_rng(0).normal(0, 0.02, clean.shape)
    return counts(seen * 10000), clean


def _curvature_of_the_plane_at(distance: int, phase: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each plane, the curvature of that `distance` planes below it (the outermost is repeated), out of focus."""
    planes = np.clip(np.arange(len(phase)) - distance, 0, len(phase) - 1)
    curvature = sum(ndimage.laplace(phase[planes], mode="nearest", axes=(axis,)) for axis in (1, 2))
    blurred: NDArray[np.float32] = ndimage.gaussian_filter(curvature, _BLUR * abs(distance), axes=(1, 2))
    return blurred
