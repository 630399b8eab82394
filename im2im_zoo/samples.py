"""Real images to try each recipe on, written as train/ and val/ folders of image pairs.

They come from a PyPI wheel (see `resources`); where a recipe needs what no wheel carries, the input is simulated
from the real image, and its description says so.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import tifffile
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from im2im_zoo.errors import DataError
from im2im_zoo.images import write_image
from im2im_zoo.resources import sample_image

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class SampleSet:
    """A pair of registered images, and where it is cut into a part for training and a held-out one."""

    description: str
    axes: tuple[tuple[str, ...], tuple[str, ...]]
    held_out: tuple[str, int]
    pair: Callable[[], tuple[Array, Array]]


def write_samples(name: str, folder: Path) -> Path:
    """Write the sample images of a recipe: `train/` and `val/`, each with `images/` and `targets/`.

    Args:
        name: one of `SAMPLES`.
        folder: made here; it must not exist.

    Raises:
        DataError: an unknown name, a folder that exists, or images that cannot be fetched.
    """
    if name not in SAMPLES:
        raise DataError(f"there are no sample images for {name!r}; there are some for {', '.join(SAMPLES)}")
    if folder.exists():
        raise DataError(f"{folder} exists already; give another folder, or remove it")
    sample = SAMPLES[name]
    arrays = sample.pair()
    axis, first = sample.held_out
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for part, region in (("train", slice(None, first)), ("val", slice(first, None))):
        for kind, array, axes in zip(("images", "targets"), arrays, sample.axes, strict=True):
            image = xr.DataArray(array, dims=axes).isel({axis: region})
            path = partial / part / kind / f"{name}.ome.tif"
            path.parent.mkdir(parents=True)
            write_image(image, path)
    partial.rename(folder)
    return folder


def _labelled(dimensions: int) -> tuple[Array, Array]:
    return tuple(tifffile.imread(sample_image(f"{kind}{dimensions}d.tif")) for kind in ("img", "mask"))  # type: ignore[return-value]


def _noisy_nuclei() -> tuple[Array, Array]:
    """Photon noise at about 4 photons in a bright voxel and read noise of one photon, seeded."""
    clean = tifffile.imread(sample_image("img3d.tif")).astype(np.float32)
    low, high = np.percentile(clean, (1, 99.8))
    photons = np.clip((clean - low) / (high - low), 0, None) * 4
    random = np.random.default_rng(0)
    noisy = random.poisson(photons) + random.normal(0, 1, clean.shape)
    return (100 + 50 * noisy).clip(0, 65535).astype(np.uint16), clean.astype(np.uint16)


def _defocused_nuclei() -> tuple[Array, Array]:
    """Through-focus intensity of a thin phase object: 1 - z k laplacian(phase) (transport of intensity)."""
    clean = tifffile.imread(sample_image("img2d.tif")).astype(np.float32)
    low, high = np.percentile(clean, (1, 99.8))
    phase = ndimage.gaussian_filter(np.clip((clean - low) / (high - low), 0, 1), 1.0)
    curvature = ndimage.laplace(phase)
    random = np.random.default_rng(0)
    planes = [
        ndimage.gaussian_filter(1 - z * curvature, 0.3 * abs(z)) + random.normal(0, 0.02, clean.shape)
        for z in np.linspace(-3, 3, 5)
    ]
    return (np.stack(planes) * 10000).clip(0, 65535).astype(np.uint16), clean.astype(np.uint16)


_YX, _ZYX, _CYX = ("y", "x"), ("z", "y", "x"), ("channel", "y", "x")
SAMPLES: Mapping[str, SampleSet] = MappingProxyType(
    {
        "nuclei_2d": SampleSet(
            "Fluorescence of nuclei and their labels (512 x 512).",
            (_YX, _YX),
            ("x", 320),
            lambda: _labelled(2),
        ),
        "nuclei_3d": SampleSet(
            "Fluorescence of nuclei and their labels (31 x 61 x 57).",
            (_ZYX, _ZYX),
            ("x", 37),
            lambda: _labelled(3),
        ),
        "denoising_3d": SampleSet(
            "Fluorescence of nuclei (31 x 61 x 57), with photon and read noise added to the input.",
            (_ZYX, _ZYX),
            ("x", 37),
            _noisy_nuclei,
        ),
        "labelfree_2d": SampleSet(
            "Fluorescence of nuclei (512 x 512); the input is a simulated through-focus stack of 5 planes.",
            (_CYX, _YX),
            ("x", 320),
            _defocused_nuclei,
        ),
    }
)
