"""Recipes with custom operations in front of tiny networks, and images for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from packaging_samples import Pair, tiny_recipe
from skimage.data import immunohistochemistry

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import make_recipe

CENTRE = {
    "id": "custom",
    "callable": "centre_normalisation",
    "source": "im2im_zoo/centre_normalisation.py",
    "kwargs": {"axes": "czyx", "chunk_size": 8},
}
MACENKO = {"id": "custom", "callable": "macenko", "source": "im2im_zoo/macenko.py", "kwargs": {"axes": "cyx"}}
TO_ONE = {"id": "scale_linear", "kwargs": {"gain": 1 / 127.5, "offset": -1.0}}


def recipe_behind(*operations: Mapping[str, Any], ndim: int = 3, task: str = "regression") -> Recipe:
    """Volumes of one channel, or red, green and blue in 2D."""
    content = tiny_recipe(ndim, task).model_dump(mode="json", exclude_none=True)
    content["input"]["preprocessing"] = [*operations]
    if ndim == 2:
        content["input"]["channels"] = ["red", "green", "blue"]
        content["network"]["kwargs"]["in_channels"] = 3
    return make_recipe(content, "behind custom operations")


def tissue(y: int, x: int, size: int = 120) -> Pair:
    """A part of real stained colon; the target is its blue."""
    image = immunohistochemistry().transpose(2, 0, 1)[:, y : y + size, x : x + size - 10]
    attrs = {"pixel_size_um": {"y": 0.5, "x": 0.5}}
    dims = ("channel", "y", "x")
    return Pair(
        f"colon {y} {x}",
        xr.DataArray(np.ascontiguousarray(image), dims=dims, attrs=attrs),
        xr.DataArray(np.ascontiguousarray(image[2:]).astype(np.float32), dims=dims),
    )
