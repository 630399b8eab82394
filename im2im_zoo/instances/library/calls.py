"""Calls of StarDist and Cellpose: from their options to a function of maps. They are loaded when it is made, and not before.

What is called, with what, is what bioimageio.core calls.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def group_by_stardist(options: Mapping[str, Any]) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The function of maps to labels by non-maximum suppression of star-convex polygons (Schmidt et al. 2018) or polyhedra (Weigert et al. 2020).

    Raises:
        ImportError: the library, or what it needs, is not installed.
    """
    stardist = _imported("stardist")
    relabel = _imported("stardist.matching").relabel_sequential
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
        if not len(points):  # which the library's drawing does not take
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
        # A label for where objects overlap may be negative, for "none".
        return np.asarray(relabel(np.maximum(drawn, 0))[0])

    return group


def group_by_cellpose(options: Mapping[str, Any]) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The function of maps to labels by which voxels follow flows to the centres of their objects (Stringer et al. 2021).

    Raises:
        ImportError: the library, or what it needs, is not installed.
    """
    dynamics, utils = _imported("cellpose.dynamics"), _imported("cellpose.utils")

    def group(maps: NDArray[np.float32]) -> NDArray[Any]:
        with warnings.catch_warnings():
            # torch tells whoever makes a sparse tensor that it is not checked.
            warnings.simplefilter("ignore", UserWarning)
            labels = dynamics.compute_masks(
                np.array(maps[:-1]),  # the library writes into what it is given
                np.array(maps[-1]),
                cellprob_threshold=options["cellprob_threshold"],
                flow_threshold=options["flow_threshold"],
                do_3D=options["do_3D"],
            )
        # Its type has room for no more than the objects there are; filling holes numbers them anew.
        found: NDArray[Any] = utils.fill_holes_and_remove_small_masks(
            labels.astype(np.uint32), min_size=options["min_size"]
        )
        return found

    return group


def _imported(name: str) -> Any:
    """A library's module; how warnings look, which StarDist changes for all, is as it was."""
    style = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module(name)
    warnings.formatwarning = style
    return module
