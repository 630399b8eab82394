"""Metadata of a model that follows from its recipe: tags, citations of the software, a description.

`missing_metadata` lists the metadata that the author has to add.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from im2im_zoo.packaging.citations import works_behind
from im2im_zoo.packaging.validation.findings import Finding
from im2im_zoo.recipe import Recipe

# Words in a recipe's texts, and their tags in bioimage.io's categories; the first that occurs counts.
_MODALITY = {
    "electron": "electron-microscopy",
    "brightfield": "transmission-light-microscopy",
    "bright field": "transmission-light-microscopy",
    "bright-field": "transmission-light-microscopy",
    "phase contrast": "transmission-light-microscopy",
    "transmi": "transmission-light-microscopy",
    "sted": "super-resolution-microscopy",
    "super-resolution": "super-resolution-microscopy",
    "histolog": "whole-slide-imaging",
    "h&e": "whole-slide-imaging",
    "fluoresc": "fluorescence-light-microscopy",
    "confocal": "fluorescence-light-microscopy",
}
_CONTENT = {
    "nucle": "nuclei",
    "mitochond": "mitochondria",
    "membrane": "cell-membrane",
    "vessel": "vasculature",
    "brain": "brain",
    "gland": "tissue",
    "tissue": "tissue",
    "plant": "plant",
    "root": "plant",
    "embryo": "whole-organism",
    "worm": "whole-organism",
    "cell": "cells",
}
_NETWORK = {"unet": "unet", "dynunet": "unet", "resnet": "resnet", "densenet": "densenet", "fnet": "unet"}
_RULES = {
    "authors": "add who made the model: --author 'NAME; affiliation=INSTITUTE; orcid=0000-0000-0000-0000'",
    "cite": "add the work that describes the model or its data: --cite 'TEXT; doi=10.1234/5678'; until then it cites the method, the network and the software only",
    "description": "add what the model does and on which images, in a sentence or two: --description TEXT",
    "documentation": "add Markdown on what it was trained on, and where it fails, to the recipe",
    "license": "no licence given, so nobody may use it: add one with --license, e.g. CC-BY-4.0",
    "training_data": "add the bioimage.io id of the dataset: --training-data ID, or a sentence on the origin of the images to the recipe",
    "maintainers": "no maintainer given: add one with --maintainer NAME:GITHUB_USER",
}


def missing_metadata(recipe: Recipe) -> tuple[Finding, ...]:
    """Return a warning for each metadata field that the author has to add, with its expected content."""
    found = []
    for name, rule in _RULES.items():
        has_user = name == "maintainers" and any(a.github_user for a in recipe.package.authors)
        if not getattr(recipe.package, name) and not has_user:
            found.append(Finding("warning", "missing_metadata", f"package.{name}", rule))
    for category, tag in _tags_by_category(recipe).items():
        if tag is None:
            found.append(
                Finding(
                    "warning",
                    "missing_metadata",
                    "package.tags",
                    f"add a tag of bioimage.io's category {category} by --tag: {', '.join(tag_categories()[category])}",
                )
            )
    return tuple(found)


def draft_tags(recipe: Recipe) -> list[str]:
    """Return one tag of each of bioimage.io's categories where it follows from the recipe, and the recipe's own."""
    drafted = [tag for tag in _tags_by_category(recipe).values() if tag is not None]
    consumers = ["ilastik", *(["deepimagej", "fiji"] if _runs_in_deepimagej(recipe) else [])]
    return list(dict.fromkeys([*recipe.package.tags, *drafted, *consumers, "im2im_zoo"]))


def draft_citations(recipe: Recipe) -> list[dict[str, str]]:
    """Return the recipe's citations, and the works behind its method, its network and the network's library."""
    cited = [c.model_dump(mode="json", exclude_none=True) for c in recipe.package.cite]
    known = {str(c.get("doi", "")).lower() for c in cited}
    for work in works_behind(recipe):
        if work.doi.lower() not in known:
            known.add(work.doi.lower())
            cited.append({"text": work.text, "doi": work.doi})
    return cited


def draft_description(recipe: Recipe) -> str:
    """Return a description from the recipe, at most the 512 characters that the format allows."""
    given, made = (", ".join(section.channels or ()) for section in (recipe.input, recipe.output))
    source = f"images of {given}" if given else "images"
    what = {
        "regression": f"Predicts {made or 'an image'} from {source}",
        "semantic": f"Segments {made or source}" + (f" in {source}" if made else ""),
        "instance": f"Finds objects in {source}",
    }[recipe.output.task]
    method, network = (c.callable.rpartition(".")[2] for c in (recipe.framework, recipe.network))
    return f"{recipe.name}. {what} ({len(recipe.space)}D). Method {method}, network {network}."[:512]


def _tags_by_category(recipe: Recipe) -> dict[str, str | None]:
    """Return for each category the recipe's tag, else the tag that follows from the recipe, else None."""
    package = recipe.package
    channels = " ".join((*(recipe.input.channels or ()), *(recipe.output.channels or ())))
    text = f"{recipe.name} {package.description} {channels} {package.documentation}".lower()
    modality = _first(_MODALITY, text)
    drafted = {
        "modality": modality,
        "dims": f"{len(recipe.space)}d",
        "content": _first(_CONTENT, text),
        "framework": "pytorch",
        "software": "ilastik",
        "network": _first(_NETWORK, recipe.network.callable.lower()),
        "task": _task(recipe, text),
    }
    given = {c: next((t for t in package.tags if t in tags), None) for c, tags in tag_categories().items()}
    return {category: given.get(category) or tag for category, tag in drafted.items()}


def _task(recipe: Recipe, text: str) -> str:
    if recipe.output.task != "regression":
        return f"{recipe.output.task}-segmentation"
    if "nois" in text:
        return "denoising"
    words = ("label-free", "labelfree", "brightfield", "in silico", "virtual stain", "transmi")
    return "in-silico-labeling" if any(w in text for w in words) else "image-restoration"


def _runs_in_deepimagej(recipe: Recipe) -> bool:
    """Return whether Fiji's deepImageJ has all operations of a recipe."""
    known = {
        "binarize", "clip", "ensure_dtype", "fixed_zero_mean_unit_variance", "scale_linear", "scale_range", "sigmoid",
        "zero_mean_unit_variance",
    }  # fmt: skip
    steps = (*recipe.input.preprocessing, *recipe.output.postprocessing)
    fancy: list[Mapping[str, Any]] = [
        s.kwargs.model_dump(exclude_none=True) for s in steps if s.id in ("clip", "scale_range")
    ]
    # It lacks percentiles and requires both limits.
    percentiles = any(s.id == "clip" and (s.kwargs.min is None or s.kwargs.max is None) for s in steps)
    return (
        all(s.id in known for s in steps)
        and not percentiles
        and not any("reference_tensor" in f for f in fancy)
    )


def _first(words: Mapping[str, str], text: str) -> str | None:
    return next((tag for word, tag in words.items() if word in text), None)


def tag_categories() -> Mapping[str, list[str]]:
    """Return bioimage.io's categories of tags; a model should have one tag of each."""
    import json

    text = (files("bioimageio.spec") / "static" / "tag_categories.json").read_text(encoding="utf-8")
    categories: Mapping[str, list[str]] = json.loads(text)["model"]
    return categories
