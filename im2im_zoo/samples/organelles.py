"""Organelles that are drawn, not imaged, into real nuclei in 3D: several in each, which count as one object. Seeded.

As fibrillarin, a protein of the nucleolus, looks: a few bright bodies in each nucleus, the rest of which is dim.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.nuclei import counts, labelled, relative
from im2im_zoo.samples.sample_set import Array

# Planes of the nuclei are about two pixels apart, and 8/3 pixels of these larger ones.
_ENLARGED = (1.5, 2, 2)
_SPACING = np.array([8 / 3, 1, 1])
_DIM = 0.15  # of the nucleus beside an organelle that is as bright as any


def organelles() -> tuple[Array, Array]:
    """An image of organelles, and labels that say whose they are: one number for all in a nucleus; (46, 122, 114) uint16 both.

    Nuclei, their shapes and what is seen of them between the organelles are real, enlarged; the organelles, photon noise and
    the blur of the microscope are computed.
    """
    image, nuclei = (
        ndimage.zoom(array, _ENLARGED, order=order) for array, order in zip(labelled(3), (1, 0), strict=True)
    )
    random = np.random.default_rng(0)
    brightness = _DIM * relative(image)
    labels = np.zeros_like(nuclei)
    for number, place in enumerate(ndimage.find_objects(nuclei), 1):
        if place is not None:
            drawn = _bodies(nuclei[place] == number, random)
            labels[place][drawn] = number
            brightness[place][drawn] = random.uniform(0.4, 1.0)
    seen = ndimage.gaussian_filter(brightness, 1 / np.sqrt(_SPACING))
    return counts(100 + 10 * random.poisson(1 + 40 * seen)), labels


def _bodies(nucleus: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.bool_]:
    """Two to five uneven balls of a radius of 3 to 6 pixels, whose centres are two pixels or more inside a nucleus."""
    padded = np.pad(nucleus, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=_SPACING)[1:-1, 1:-1, 1:-1]
    middles = np.argwhere(depth >= min(2, depth.max()))
    uneven = ndimage.gaussian_filter(random.normal(0, 1, nucleus.shape), 2 / _SPACING)
    drawn = np.zeros_like(nucleus)
    for middle in random.choice(middles, random.integers(2, 6)):
        away = (np.moveaxis(np.indices(nucleus.shape), 0, -1) - middle) * _SPACING
        drawn |= np.linalg.norm(away, axis=-1) + 4 * uneven < random.uniform(3, 6)
    return drawn & nucleus
