"""Metadata of a model that is exported: given by the user, and never those of a sample recipe that it was trained with."""

from collections.abc import Collection, Mapping
from typing import Any

from im2im_zoo.packaging.editing.changes import Changes, change_metadata
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import recipe_names
from im2im_zoo.recipe.schema import PackageMetadata

# Fields of the metadata that describe a model and its data.
_DESCRIPTIVE = ("description", "training_data", "documentation", "tags")
_LISTS = ("authors", "maintainers", "cite")
_WORDS = {
    "authors": "the authors",
    "maintainers": "the maintainers",
    "cite": "citations",
    "description": "the description",
    "training_data": "the training data",
    "documentation": "the documentation",
    "tags": "the tags",
}


def with_metadata(recipe: Recipe, changes: Changes) -> Recipe:
    """Return a recipe with changes of its package's metadata and name; those of files are not made here.

    Raises:
        PackageError: a malformed value.
    """
    package = recipe.package.model_dump(mode="json", exclude_none=True)
    new = change_metadata({"name": recipe.name, **package}, changes)
    data = new.get("training_data")
    if isinstance(data, Mapping):
        new["training_data"] = data["id"]
    name = new.pop("name")
    return recipe.model_copy(update={"name": name, "package": PackageMetadata.model_validate(_known(new))})


def without_sample_metadata(recipe: Recipe, image_names: Collection[str]) -> tuple[Recipe, tuple[str, ...]]:
    """Return a recipe without metadata of the sample recipes, unless it was trained on the images of one.

    A copied recipe, or a recipe of im2im_zoo that is trained on other images, would claim authors and data that are not the
    model's.

    Args:
        recipe: of the training.
        image_names: of its training and validation images.

    Returns:
        The recipe, and a message for the user if anything was left out.
    """
    sample = _read_metadata()
    if any(_is_sample(name, image_names) for name in sample):
        return recipe, ()
    own = recipe.package.model_dump(mode="json", exclude_none=True)
    left_out = []
    for key in _LISTS:
        theirs = [entry for package in sample.values() for entry in package.get(key, ())]
        kept = [entry for entry in own.get(key, ()) if entry not in theirs]
        if len(kept) < len(own.get(key, ())):
            left_out.append(_WORDS[key])
        own[key] = kept
    for key in _DESCRIPTIVE:
        if own.get(key) and any(own[key] == package.get(key) for package in sample.values()):
            left_out.append(_WORDS[key])
            del own[key]
    if not left_out:
        return recipe, ()
    message = f"left out {', '.join(left_out)} of the sample recipe, because the model was trained on other images; add your own"
    return recipe.model_copy(update={"package": PackageMetadata.model_validate(own)}), (message,)


def _is_sample(name: str, image_names: Collection[str]) -> bool:
    """Return whether all images are of the sample set of a recipe, whose files have its name."""
    return bool(image_names) and set(image_names) <= {name, f"{name}_images", f"{name}_targets"}


def _read_metadata() -> dict[str, dict[str, Any]]:
    """Read the metadata of the recipes that come with im2im_zoo, as plain values of a dumped recipe."""
    from im2im_zoo.recipe.load import load_recipe

    return {
        name: load_recipe(path).package.model_dump(mode="json", exclude_none=True)
        for name, path in recipe_names().items()
    }


def _known(package: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in package.items() if key in PackageMetadata.model_fields}
