"""Citations of the works behind a recipe: its framework, its network and the library of the network.

Classes of im2im_zoo name their work in the attribute `cite`; those of other libraries are in `citations.yaml`.
"""

import functools
import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from importlib.resources import files

import yaml

from im2im_zoo.core.citation import Citation
from im2im_zoo.recipe import Recipe


def works_behind(recipe: Recipe) -> Iterator[Citation]:
    """Yield the works on the framework and the network of a recipe, as far as they are known, and on the library."""
    library = recipe.network.package
    for component in (recipe.framework, recipe.network):
        work = work_on(component.callable)
        if work is not None:
            yield work
    yield third_party_works()["monai" if library == "monai" else "torch"]


def work_on(path: str) -> Citation | None:
    """Return the work on a framework or network; None if none is known.

    Args:
        path: dotted path of a class, or of a function whose annotation names the class that it returns. Other code than
            im2im_zoo's is not imported.
    """
    module, _, name = path.rpartition(".")
    if not module.startswith("im2im_zoo."):
        return third_party_works().get(path)
    found = getattr(importlib.import_module(module), name, None)
    if inspect.isfunction(found):
        found = typing.get_type_hints(found).get("return")
    work = getattr(found, "cite", None)
    return work if isinstance(work, Citation) else None


@functools.cache
def third_party_works() -> Mapping[str, Citation]:
    """Return the works of `citations.yaml`, by dotted path or library."""
    text = (files("im2im_zoo") / "packaging" / "citations.yaml").read_text(encoding="utf-8")
    return {path: Citation(**work) for path, work in yaml.safe_load(text).items()}
