"""The grouping that a recipe names, on its way into a package: its file, what the package says of it, and labels by it."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from im2im_zoo.core.axes import space_axes
from im2im_zoo.core.errors import PackageError
from im2im_zoo.instances.grouping import GroupFunction
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import resolve_component

_KEY = "output.grouping.callable"


def grouping_name(recipe: Recipe) -> str | None:
    """The name that the file has in a package, or None if the recipe has no grouping."""
    component = recipe.output.grouping
    return None if component is None else f"{component.callable.split('.')[-2]}.py"


def grouping_file(recipe: Recipe, allow_code: Collection[str] = ()) -> Path | None:
    """The file of the recipe's grouping, if it has one.

    Args:
        allow_code: packages whose code may be imported, see `components.resolve_component`.

    Raises:
        ComponentError: no such function, or no consent to import it.
        PackageError: it is in no Python file.
    """
    component = recipe.output.grouping
    if component is None:
        return None
    function = resolve_component(component.callable, _KEY, allow_code)
    try:
        source = inspect.getsourcefile(function)
    except TypeError:
        source = None
    module = inspect.getmodule(function)
    if source is None or module is None or module.__name__ != component.callable.rpartition(".")[0]:
        raise PackageError(
            f"{_KEY}: {component.callable} is not defined in a Python file of its own, which a package could ship: write a "
            "function `group(maps, ...)` into one, and name it by the module that defines it"
        )
    return Path(source)


def describe_grouping(recipe: Recipe, sha256: str) -> dict[str, Any]:
    """What stands in `config.im2im_zoo.grouping` of a package of a recipe with grouping."""
    component = recipe.output.grouping
    if component is None:
        raise ValueError("a recipe without grouping")
    return {
        "source": grouping_name(recipe),
        "sha256": sha256,
        "callable": component.callable.rpartition(".")[2],
        "kwargs": dict(component.kwargs),
        "output": recipe.output.id,
    }


def labels_of(function: GroupFunction, maps: xr.DataArray) -> xr.DataArray:
    """The labels of the maps of one image.

    Args:
        maps: with space axes, whole and in memory; without a channel axis they are one map.

    Returns:
        The same without channels.

    Raises:
        PackageError: what the function does not do.
    """
    space = space_axes(map(str, maps.dims))
    if "channel" not in maps.dims:
        maps = maps.expand_dims("channel")
    values = np.ascontiguousarray(maps.transpose("channel", *space).to_numpy(), np.float32)
    return xr.DataArray(function(values), dims=space, attrs=maps.attrs)
