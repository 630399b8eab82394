"""Real images to try each recipe on, written as train/ and val/ folders of image pairs.

They come from a PyPI wheel (see `resources`) or inside scikit-image; where a recipe needs what neither carries, the
input or the target is computed from the real image, and its description says so.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from im2im_zoo.core.errors import DataError
from im2im_zoo.samples import nuclei, organelles, tissue, transmitted_light, worms
from im2im_zoo.samples.sample_set import CYX, YX, ZYX, SampleSet, write_set

__all__ = ["SAMPLES", "SampleSet", "write_samples"]

_2D = "Fluorescence of nuclei (512 x 512)"
_3D = "Fluorescence of nuclei (31 x 61 x 57)"
_SECTION = "A section of colon glands with haematoxylin and DAB (512 x 512, RGB)"
_LABELLED_2D = SampleSet(f"{_2D} and their labels.", (YX, YX), ("x", 320), partial(nuclei.labelled, 2))
_THROUGH_FOCUS_2D = SampleSet(
    f"{_2D}; the input is a simulated through-focus stack of 5 planes.",
    (CYX, YX),
    ("x", 320),
    transmitted_light.through_focus_2d,
)
_THROUGH_FOCUS = SampleSet(
    f"{_3D}; the input is a simulated stack through focus in transmitted light.",
    (ZYX, ZYX),
    ("x", 37),
    transmitted_light.through_focus_3d,
)
_NOISY_2D = SampleSet(
    f"{_2D} with photon and read noise added; without it only of the held-out part.",
    (YX, YX),
    ("x", 320),
    partial(nuclei.noisy_counts, 2, 20.0),
    alone=True,
)
_NOISY_3D = replace(
    _NOISY_2D,
    description=f"{_3D} with photon and read noise added; without it only of the held-out part.",
    axes=(ZYX, ZYX),
    held_out=("x", 37),
    pair=partial(nuclei.noisy_counts, 3, 20.0),
)
_ORGANELLES = SampleSet(
    "Organelles, drawn into real nuclei (46 x 122 x 114), and labels that have one number for all of a nucleus; "
    "nuclei that the cut between the parts goes through are left out by cost maps.",
    (ZYX, ZYX),
    ("x", 74),
    organelles.organelles,
    cuts_left_out=True,
)

SAMPLES: Mapping[str, SampleSet] = MappingProxyType(
    {
        "nuclei_2d": _LABELLED_2D,
        "nuclei_3d": SampleSet(
            f"{_3D} and their labels.", (ZYX, ZYX), ("x", 37), partial(nuclei.labelled, 3)
        ),
        "nuclei_instances_2d": _LABELLED_2D,
        "nuclei_watershed_2d": _LABELLED_2D,
        "nuclei_instances_3d": SampleSet(
            f"{_3D} and their labels; those that the cut between the parts goes through are left out by cost maps.",
            (ZYX, ZYX),
            ("x", 37),
            partial(nuclei.labelled, 3),
            cuts_left_out=True,
        ),
        "worms_2d": SampleSet(
            "Worms and their labels (512 x 512), drawn, not imaged.", (YX, YX), ("x", 320), worms.worms
        ),
        "organelles_semantic_3d": _ORGANELLES,
        "organelles_instances_3d": _ORGANELLES,
        "denoising_3d": SampleSet(
            f"{_3D}, with photon and read noise added to the input.", (ZYX, ZYX), ("x", 37), nuclei.noisy
        ),
        "denoising_n2v_2d": _NOISY_2D,
        "denoising_n2v_3d": _NOISY_3D,
        "denoising_self2self_2d": _NOISY_2D,
        "denoising_structn2v_2d": replace(
            _NOISY_2D,
            description=f"{_2D} with photon and read noise and short lines along x added; without noise only of the held-out part.",
            pair=partial(nuclei.noisy_counts, 2, 20.0, lines=2.0),
        ),
        "modality_transfer_3d": SampleSet(
            f"{_3D}; the input is blurred and has photon noise.", (ZYX, ZYX), ("x", 37), nuclei.blurred
        ),
        "labelfree_2d": _THROUGH_FOCUS_2D,
        "labelfree_2d_diffusion": _THROUGH_FOCUS_2D,
        "labelfree_3d": _THROUGH_FOCUS,
        "labelfree_3d_pix2pix": _THROUGH_FOCUS,
        "labelfree_3d_cyclegan": replace(
            _THROUGH_FOCUS,
            description=f"{_3D}; the input is a simulated stack through focus of another part, of nuclei that absorb light as well.",
            pair=partial(transmitted_light.through_focus_3d, absorption=0.2),
            unpaired=("y", 30),
        ),
        "glands_2d": SampleSet(
            f"{_SECTION}; the target is where DAB, smoothed, exceeds a threshold.",
            (CYX, YX),
            ("x", 320),
            tissue.glands,
        ),
        "segmentation_2d_probabilistic": SampleSet(
            f"{_2D} and a mask of them, each drawn by one of three simulated people.",
            (YX, YX),
            ("x", 320),
            nuclei.drawn_by_several,
        ),
        "stain_transfer_2d": SampleSet(
            f"{_SECTION}; the target is its haematoxylin alone, by colour deconvolution.",
            (CYX, CYX),
            ("x", 320),
            tissue.haematoxylin_alone,
        ),
        "unsupervised_segmentation_2d": SampleSet(
            f"{_2D} and labels of another part.",
            (YX, YX),
            ("x", 320),
            partial(nuclei.labelled, 2),
            unpaired=("y", 256),
        ),
        "unsupervised_segmentation_3d": SampleSet(
            f"{_3D} and labels of another part.",
            (ZYX, ZYX),
            ("x", 37),
            partial(nuclei.labelled, 3),
            unpaired=("y", 30),
        ),
        "synthesis_2d": SampleSet(
            "Labels of nuclei and their fluorescence (512 x 512).",
            (YX, YX),
            ("x", 320),
            partial(nuclei.labels_first, 2),
        ),
        "synthesis_2d_unsupervised": SampleSet(
            "Labels of nuclei and fluorescence of another part (512 x 512).",
            (YX, YX),
            ("x", 320),
            partial(nuclei.labels_first, 2),
            unpaired=("y", 256),
        ),
        "synthesis_3d": SampleSet(
            "Labels of nuclei and their fluorescence (31 x 61 x 57).",
            (ZYX, ZYX),
            ("x", 37),
            partial(nuclei.labels_first, 3),
        ),
    }
)


def write_samples(name: str, folder: Path) -> Path:
    """Write the sample images of a recipe: `train/` and `val/`, each with `images/` and, if they have any, `targets/`.

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
    write_set(SAMPLES[name], name, folder)
    return folder
