"""The works behind a recipe's method, network and library, for packages to cite. Imports none of them.

Those that come with im2im_zoo are in `citations.yaml`; another framework or network of it is cited by the first work that the
docstring of its class names, as `(Long et al. 2015, arXiv:1411.4038)`.
"""

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import yaml

from im2im_zoo.recipe import Recipe

_WORK = re.compile(r"([A-ZÀ-Ž][\w\-]+ (?:et al\.|(?:&|and) \w+) \d{4})[,:]? \(?(arXiv:|doi:)([^\s,;)]+)")


def works_behind(recipe: Recipe) -> Iterator[Mapping[str, str]]:
    """Text and DOI of the works on the method, the network and the library that it is of."""
    library = recipe.network.callable.split(".")[0]
    for component in (recipe.framework, recipe.network):
        work = work_on(component.callable)
        if work is not None:
            yield work
    yield known_works()["monai" if library == "monai" else "torch"]


def work_on(path: str) -> Mapping[str, str] | None:
    """The work on a framework or network by its dotted path; None if none is known."""
    known, (module, _, name) = known_works(), path.rpartition(".")
    return known.get(path) or known.get(module) or _of_docstring(module, name)


@functools.cache
def known_works() -> Mapping[str, Mapping[str, str]]:
    """The works of `citations.yaml`."""
    text = (files("im2im_zoo") / "packaging" / "citations.yaml").read_text(encoding="utf-8")
    works: Mapping[str, Mapping[str, str]] = yaml.safe_load(text)
    return works


def _of_docstring(module: str, name: str) -> Mapping[str, str] | None:
    if not module.startswith("im2im_zoo."):  # to find the file of another's module would import it
        return None
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return None
    for node in ast.parse(Path(found.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            match = _WORK.search(" ".join((ast.get_docstring(node) or "").split()))
            if match is None:
                return None
            who, kind, number = match.groups()
            doi = f"10.48550/arXiv.{number}" if kind == "arXiv:" else number
            return {"text": f"{who} ({name})", "doi": doi.rstrip(".")}
    return None
