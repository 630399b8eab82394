"""Segmentation functions of StarDist and Cellpose; the libraries are imported only when a function is created.

The libraries are called with the same arguments as by bioimageio.core.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def group_by_stardist(options: Mapping[str, Any]) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Create the function from maps to labels of StarDist.

    It uses non-maximum suppression of star-convex polygons (Schmidt et al. 2018) or polyhedra (Weigert et al. 2020).

    Args:
        options: kwargs of `stardist_postprocessing`.

    Raises:
        ImportError: the library or one of its dependencies is not installed.
    """
    stardist = _import_library("stardist")
    relabel = _import_library("stardist.matching").relabel_sequential
    grid, three = tuple(options["grid"]), len(options["grid"]) == 3
    found = {
        "grid": grid,
        "b": options["b"],
        "prob_thresh": options["prob_threshold"],
        "nms_thresh": options["nms_threshold"],
    }
    if three:
        rays = stardist.Rays_GoldenSpiral(options["n_rays"], anisotropy=tuple(options["anisotropy"]))

    def group(maps: NDArray[np.float32]) -> NDArray[Any]:
        probability, distances = maps[0], np.moveaxis(maps[1:], 0, -1)
        shape = tuple(n * g for n, g in zip(probability.shape, grid, strict=True))
        if not three:
            points, sure, far = stardist.non_maximum_suppression(distances, probability, **found)
            labels: NDArray[Any] = stardist.polygons_to_label(far, points, prob=sure, shape=shape)
            return labels
        points, sure, far = stardist.non_maximum_suppression_3d(distances, probability, rays, **found)
        if not len(points):  # the library cannot draw zero objects
            return np.zeros(shape, np.int32)
        drawn = stardist.polyhedron_to_label(
            far,
            points,
            rays=rays,
            prob=sure,
            shape=shape,
            overlap_label=options.get("overlap_label"),
            verbose=False,
        )
        # A negative label for overlapping voxels means "none".
        return np.asarray(relabel(np.maximum(drawn, 0))[0])

    return group


def group_by_cellpose(options: Mapping[str, Any]) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Create the function from maps to labels of Cellpose: voxels follow flows to their object's centre (Stringer et al. 2021).

    Args:
        options: kwargs of `cellpose_flow_dynamics`.

    Raises:
        ImportError: the library or one of its dependencies is not installed.
    """
    dynamics, utils = _import_library("cellpose.dynamics"), _import_library("cellpose.utils")

    def group(maps: NDArray[np.float32]) -> NDArray[Any]:
        with warnings.catch_warnings():
            # torch warns that sparse tensors are not checked.
            warnings.simplefilter("ignore", UserWarning)
            labels = dynamics.compute_masks(
                np.array(maps[:-1]),  # a copy, as the library writes into it
                np.array(maps[-1]),
                cellprob_threshold=options["cellprob_threshold"],
                flow_threshold=options["flow_threshold"],
                do_3D=options["do_3D"],
            )
        # The labels' type is only large enough for the objects; filling holes numbers them again.
        found: NDArray[Any] = utils.fill_holes_and_remove_small_masks(
            labels.astype(np.uint32), min_size=options["min_size"]
        )
        return found

    return group


def _import_library(name: str) -> Any:
    """Import a module and restore the format of warnings, which StarDist changes globally."""
    style = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    warnings.formatwarning = style
    return module
