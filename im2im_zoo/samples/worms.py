"""Simulated worms, seeded: long, curved, touching and crossing bodies with their labels."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.samples.nuclei import to_counts
from im2im_zoo.samples.sample_set import Array

_SIZE, _WORMS = 512, 120
_RADIUS, _MARGIN = 4.5, 8
# A worm on top of others hides at most this share of each of them.
_HIDDEN = 0.4


def draw_worms() -> tuple[Array, Array]:
    """Draw up to 120 worms of one kind, as many as fit.

    A body is brightest along its middle. Where two cross, one lies on top of the other, which may then have two parts.

    Returns:
        The image and the labels, both (512, 512) uint16.
    """
    random = np.random.default_rng(0)
    labels = np.zeros((_SIZE, _SIZE), np.uint16)
    brightness = np.zeros((_SIZE, _SIZE))
    areas = np.zeros(_WORMS + 1)
    for number in range(1, _WORMS + 1):
        for window, body in _draw_bodies(random):
            inside = body > 0
            hidden = np.bincount(labels[window][inside], minlength=_WORMS + 1)
            if inside.sum() > 150 and (hidden[1:] <= _HIDDEN * areas[1:]).all():
                labels[window][inside] = number
                brightness[window][inside] = body[inside] * random.uniform(0.7, 1.0)
                # What is left of partly hidden worms counts as their whole area from now on.
                areas[:] = np.bincount(labels.ravel(), minlength=_WORMS + 1)
                break
    seen = ndimage.gaussian_filter(brightness, 0.8)
    return to_counts(100 + 10 * random.poisson(5 + 40 * seen)), labels


def _draw_bodies(random: np.random.Generator) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float64]]]:
    """Yield bodies at random places, each with its window of the image: from 0 outside to 1 along the middle."""
    for _ in range(20):
        length = int(random.uniform(45, 75))
        bend = random.normal(0, 0.02) + ndimage.gaussian_filter1d(random.normal(0, 0.25, length), 8)
        heading = random.uniform(0, 2 * np.pi) + np.cumsum(bend)
        start = random.uniform(0, _SIZE, 2)
        line = start[:, None] + np.cumsum([np.sin(heading), np.cos(heading)], 1)
        line = line[:, ((line >= 0) & (line < _SIZE)).all(0)].astype(int)
        if line.size:
            first = np.maximum(line.min(1) - _MARGIN, 0)
            window = tuple(slice(a, b) for a, b in zip(first, line.max(1) + _MARGIN, strict=True))
            middle = np.ones((_SIZE, _SIZE), bool)[window]
            middle[tuple(line - first[:, None])] = False
            yield window, np.clip(1.2 - ndimage.distance_transform_edt(middle) / _RADIUS, 0, 1)
