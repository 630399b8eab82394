"""Instance labels of the network's output on a few held-out patches, by the recipe's own post-processing."""

import time
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from im2im_zoo.core.errors import ComponentError, Im2ImError
from im2im_zoo.instances.function import GroupFunction
from im2im_zoo.processing import fit
from im2im_zoo.processing.operations import requirements
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import resolve_component

# No further patch is segmented after these: maps of the first epochs can give very many objects.
_SECONDS = 3.0
PatchLabeler = Callable[[NDArray[np.float32]], NDArray[np.int32]]


def make_patch_labeler(recipe: Recipe, allow_code: Collection[str] = ()) -> PatchLabeler | None:
    """Return a function that segments the network's output on patches as the package will; None if the recipe cannot be followed so.

    It takes (patch, channel, (z,) y, x) and returns labels (patch, 1, (z,) y, x), of fewer patches where the time is over or the
    segmentation fails.

    Args:
        recipe: with `output.grouping`; without one, or if its postprocessing measures the whole image, there are no labels.
        allow_code: see `components.resolve_component`.
    """
    grouping, operations = recipe.output.grouping, recipe.output.postprocessing
    if grouping is None or any(o.id == "custom" or requirements(o) for o in operations):
        return None
    key = "output.grouping.callable"
    try:
        called = resolve_component(grouping.callable, key, allow_code)
    except ComponentError:  # training does not need it; the export names what is wrong
        return None
    function = GroupFunction(key, called, dict(grouping.kwargs))

    def label_patch(output: NDArray[np.float32]) -> NDArray[Any]:
        image = xr.DataArray(output, dims=("channel", *recipe.space))
        maps = fit(operations, image)(image).to_numpy()
        return function(np.ascontiguousarray(maps, np.float32))

    def label(outputs: NDArray[np.float32]) -> NDArray[np.int32]:
        found, started = [], time.monotonic()
        for output in outputs:
            try:
                found.append(label_patch(output).astype(np.int32))
            except Im2ImError:
                break
            if time.monotonic() - started > _SECONDS:
                break
        space = outputs.shape[2:]
        return np.stack(found)[:, None] if found else np.zeros((0, 1, *space), np.int32)

    return label
