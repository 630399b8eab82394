"""Simulated organelles in real nuclei in 3D, seeded: several in each nucleus, which count as one object.

They look like fibrillarin, a protein of the nucleolus: a few bright bodies in each nucleus, which is dim elsewhere.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.nuclei import load_labelled, scale_brightness, to_counts
from im2im_zoo.samples.sample_set import Array

# Planes of the original nuclei are about two pixels apart; those of the enlarged ones 8/3 pixels.
_ENLARGED = (1.5, 2, 2)
_SPACING = np.array([8 / 3, 1, 1])
_DIM = 0.15  # brightness of the nucleus, relative to the brightest organelle


def draw_organelles() -> tuple[Array, Array]:
    """Draw organelles into the real, enlarged nuclei, and add photon noise and the blur of a microscope.

    Returns:
        The image and the labels, with one number for all organelles of a nucleus; both (46, 122, 114) uint16.
    """
    image, nuclei = (
        ndimage.zoom(array, _ENLARGED, order=order)
        for array, order in zip(load_labelled(3), (1, 0), strict=True)
    )
    random = np.random.default_rng(0)
    brightness = _DIM * scale_brightness(image)
    labels = np.zeros_like(nuclei)
    for number, place in enumerate(ndimage.find_objects(nuclei), 1):
        if place is not None:
            drawn = _draw_bodies(nuclei[place] == number, random)
            labels[place][drawn] = number
            brightness[place][drawn] = random.uniform(0.4, 1.0)
    seen = ndimage.gaussian_filter(brightness, 1 / np.sqrt(_SPACING))
    return to_counts(100 + 10 * random.poisson(1 + 40 * seen)), labels


def _draw_bodies(nucleus: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.bool_]:
    """Draw two to five uneven balls of radius 3 to 6 pixels with centres at least two pixels inside a nucleus."""
    padded = np.pad(nucleus, 1)
    depth = ndimage.distance_transform_edt(padded, sampling=_SPACING)[1:-1, 1:-1, 1:-1]
    middles = np.argwhere(depth >= min(2, depth.max()))
    uneven = ndimage.gaussian_filter(random.normal(0, 1, nucleus.shape), 2 / _SPACING)
    drawn = np.zeros_like(nucleus)
    for middle in random.choice(middles, random.integers(2, 6)):
        away = (np.moveaxis(np.indices(nucleus.shape), 0, -1) - middle) * _SPACING
        drawn |= np.linalg.norm(away, axis=-1) + 4 * uneven < random.uniform(3, 6)
    return drawn & nucleus
