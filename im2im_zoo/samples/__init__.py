"""Real sample images for each recipe, written as train/ and val/ folders of image pairs.

They come from a PyPI wheel (see `core.resources`) or from scikit-image. Where neither has what a recipe needs, the
input or the target is computed from the real image, as the description of the sample set states.
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
_in_2d = partial(SampleSet, axes=(YX, YX), held_out=("x", 320))
_in_3d = partial(SampleSet, axes=(ZYX, ZYX), held_out=("x", 37))
_labelled_2d, _labelled_3d = (partial(nuclei.load_labelled, dimensions) for dimensions in (2, 3))
_labels_first_2d, _labels_first_3d = (partial(nuclei.load_labels_first, dimensions) for dimensions in (2, 3))

_LABELLED_2D = _in_2d(f"{_2D} and their labels.", pair=_labelled_2d)
_THROUGH_FOCUS_2D = _in_2d(
    f"{_2D}; the input is a simulated through-focus stack of 5 planes.",
    axes=(CYX, YX),
    pair=transmitted_light.simulate_focus_2d,
)
_THROUGH_FOCUS = _in_3d(
    f"{_3D}; the input is a simulated stack through focus in transmitted light.",
    pair=transmitted_light.simulate_focus_3d,
)
_NOISY_2D = _in_2d(
    f"{_2D} with photon and read noise added; the held-out part also without noise.",
    pair=partial(nuclei.simulate_photon_noise, 2, 20.0),
    images_only=True,
)
_NOISY_3D = _in_3d(
    f"{_3D} with photon and read noise added; the held-out part also without noise.",
    pair=partial(nuclei.simulate_photon_noise, 3, 20.0),
    images_only=True,
)
_ORGANELLES = _in_3d(
    "Organelles, drawn into real nuclei (46 x 122 x 114), and labels with one number for all organelles of a nucleus; "
    "cost maps leave out nuclei that lie in both parts.",
    held_out=("x", 74),
    pair=organelles.draw_organelles,
    cuts_left_out=True,
)

SAMPLES: Mapping[str, SampleSet] = MappingProxyType(
    {
        "nuclei_2d": _LABELLED_2D,
        "nuclei_3d": _in_3d(f"{_3D} and their labels.", pair=_labelled_3d),
        "nuclei_instances_2d": _LABELLED_2D,
        "nuclei_watershed_2d": _LABELLED_2D,
        "nuclei_instances_3d": _in_3d(
            f"{_3D} and their labels; cost maps leave out nuclei that lie in both parts.",
            pair=_labelled_3d,
            cuts_left_out=True,
        ),
        "worms_2d": _in_2d("Simulated worms and their labels (512 x 512).", pair=worms.draw_worms),
        "organelles_semantic_3d": _ORGANELLES,
        "organelles_instances_3d": _ORGANELLES,
        "denoising_3d": _in_3d(
            f"{_3D}, with photon and read noise added to the input.", pair=nuclei.add_noise
        ),
        "denoising_n2v_2d": _NOISY_2D,
        "denoising_n2v_3d": _NOISY_3D,
        "denoising_self2self_2d": _NOISY_2D,
        "denoising_structn2v_2d": replace(
            _NOISY_2D,
            description=f"{_2D} with photon and read noise and short lines along x added; the held-out part also without noise.",
            pair=partial(nuclei.simulate_photon_noise, 2, 20.0, lines=2.0),
        ),
        "modality_transfer_3d": _in_3d(
            f"{_3D}; the input is blurred and has photon noise.", pair=nuclei.simulate_blur
        ),
        "labelfree_2d": _THROUGH_FOCUS_2D,
        "labelfree_2d_diffusion": _THROUGH_FOCUS_2D,
        "labelfree_3d": _THROUGH_FOCUS,
        "labelfree_3d_pix2pix": _THROUGH_FOCUS,
        "labelfree_3d_cyclegan": replace(
            _THROUGH_FOCUS,
            description=f"{_3D}; the input is a simulated through-focus stack of another part, whose nuclei also absorb light.",
            pair=partial(transmitted_light.simulate_focus_3d, absorption=0.2),
            unpaired=("y", 30),
        ),
        "glands_2d": _in_2d(
            f"{_SECTION}; the target is the area where smoothed DAB exceeds a threshold.",
            axes=(CYX, YX),
            has_colours=True,
            pair=tissue.segment_glands,
        ),
        "segmentation_2d_probabilistic": _in_2d(
            f"{_2D} and a mask of them, each annotated by one of three simulated experts.",
            pair=nuclei.draw_by_several,
        ),
        "stain_transfer_2d": _in_2d(
            f"{_SECTION}; the target is only its haematoxylin, by colour deconvolution.",
            axes=(CYX, CYX),
            has_colours=True,
            pair=tissue.isolate_haematoxylin,
        ),
        "unsupervised_segmentation_2d": _in_2d(
            f"{_2D} and labels of another part.", pair=_labelled_2d, unpaired=("y", 256)
        ),
        "unsupervised_segmentation_3d": _in_3d(
            f"{_3D} and labels of another part.", pair=_labelled_3d, unpaired=("y", 30)
        ),
        "synthesis_2d": _in_2d("Labels of nuclei and their fluorescence (512 x 512).", pair=_labels_first_2d),
        "synthesis_2d_unsupervised": _in_2d(
            "Labels of nuclei and fluorescence of another part (512 x 512).",
            pair=_labels_first_2d,
            unpaired=("y", 256),
        ),
        "synthesis_3d": _in_3d(
            "Labels of nuclei and their fluorescence (31 x 61 x 57).", pair=_labels_first_3d
        ),
    }
)


def write_samples(name: str, folder: Path) -> Path:
    """Write the sample images of a recipe: `train/` and `val/`, each with `images/` and, if there are any, `targets/`.

    Args:
        name: one of `SAMPLES`.
        folder: created here; it must not exist.

    Returns:
        The folder.

    Raises:
        DataError: an unknown name, a folder that exists, or images that cannot be fetched.
    """
    if name not in SAMPLES:
        raise DataError(f"there are no sample images for {name!r}: choose one of {', '.join(SAMPLES)}")
    if folder.exists():
        raise DataError(f"{folder} already exists; give another folder, or remove it")
    write_set(SAMPLES[name], name, folder)
    return folder
