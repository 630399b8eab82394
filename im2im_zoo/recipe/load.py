"""Reading of recipes: YAML, overrides of any key at any depth, and messages that name the full key."""

import copy
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.core.resources import model_sources
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import find_default, is_component, parse_component, suggest_nearest
from im2im_zoo.recipe.placeholders import with_words


class _Loader(yaml.SafeLoader):
    """YAML 1.1 loader with the floats of YAML 1.2: `1e-3` is a number."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:float"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def recipe_names() -> dict[str, Path]:
    """Return the files of the recipes shipped with im2im_zoo, by name."""
    return {path.parent.name: path for path in sorted(model_sources().glob("*/recipe.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """Find the file of a recipe by its path, its folder, or its name in `model_sources/`.

    Raises:
        RecipeError: there is none; the message lists the names.
    """
    path = Path(source)
    if path.is_file():
        return path
    if (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    names = recipe_names()
    if str(source) in names:
        return names[str(source)]
    raise RecipeError(
        f"{str(source)!r} is neither a recipe file nor the name of a recipe{suggest_nearest(str(source), names)}"
    )


def load_recipe(source: str | Path, overrides: Sequence[tuple[str, object]] = ()) -> Recipe:
    """Load a recipe and override some of its keys.

    Args:
        source: a path, folder or name; see `find_recipe`.
        overrides: dotted keys and their values, e.g. ("network.kwargs.features.0", 16); a list is indexed by
            number; a key that the file lacks is added.

    Raises:
        RecipeError: no such recipe, invalid YAML, an unknown key (the message names the full key and suggests the
            closest known one), or an invalid value.
    """
    path = find_recipe(source)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(
            f"{path} is not a recipe: it holds {type(content).__name__}, not a mapping of keys; give a recipe.yaml"
        )
    for key, value in overrides:
        content = _set_key(content, key.split("."), value, key)
    return make_recipe(content, str(path))


def make_recipe(content: Mapping[str, Any], source: str) -> Recipe:
    """Make a recipe from a mapping (read from YAML).

    Args:
        content: keys and values.
        source: its name in messages.

    Raises:
        RecipeError: as `load_recipe`.
    """
    from bioimageio.spec import ValidationContext

    try:
        with ValidationContext(perform_io_checks=False):
            return Recipe.model_validate(content)
    except ValidationError as error:
        lines = [_explain(details, content) for details in error.errors()]
        raise RecipeError(f"{source}: " + "\n".join(dict.fromkeys(lines))) from error


def parse_value(text: str) -> Any:
    """Parse the value of `--key=text` as YAML: `16`, `1e-3`, `[1, 2]`, `true` and `null` have their YAML types."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 a SafeLoader
    except yaml.YAMLError:
        return text


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, which `load_recipe` reads to an equal recipe."""
    content = with_words(recipe.model_dump(mode="json", exclude_none=True))
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


# Metadata that only the authors of a model know, as hints.
METADATA_HINTS = (
    "  # license: CC-BY-4.0",
    "  # description: What it does, on which images, for what.",
    "  # training_data: Where the images come from.",
    "  # documentation: Markdown on its use and its limits.",
    "  # maintainers: [{name: Ada Lovelace, github_user: ada}]",
    "  # tags: [nuclei, fluorescence-light-microscopy]",
    '  # cite: [{text: "Lovelace 1843: Title", doi: 10.1234/5678}]',
)
AUTHORS_HINT = (
    "  authors: []  # [{name: Ada Lovelace, affiliation: Example Institute, orcid: 0000-0000-0000-0000}]"
)
METADATA_COMMENT = (
    "# What only you know; `im2im-zoo export` lists what is missing and takes it as options, too."
)


def copied_text(text: str) -> str:
    """Return the text of a recipe for a copy of the user's own: with hints in the place of the package's metadata."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        inside = line.startswith("package:") or (inside and (not line.strip() or line.startswith((" ", "#"))))
        if not inside:
            kept.append(line)
    return "\n".join([*kept, METADATA_COMMENT, "package:", AUTHORS_HINT, *METADATA_HINTS, ""])


def _set_key(node: Any, keys: Sequence[str], value: object, full: str) -> Any:
    """Return a copy of `node` with the value at `keys` replaced."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list | tuple):
        if not key.isdigit() or int(key) >= len(node):
            raise RecipeError(
                f"--{full}: {key!r} is not an index of a list of {len(node)}; use 0 to {len(node) - 1}"
            )
        return [_set_key(v, rest, value, full) if i == int(key) else v for i, v in enumerate(node)]
    if node is None:
        node = {}
    if not isinstance(node, Mapping):
        raise RecipeError(f"--{full}: {node!r} has no keys, so {key!r} cannot be set; check the key")
    inner: Any = node.get(key)
    if key == "kwargs" and len(rest) > 1 and is_component(node) and rest[0] not in (inner or {}):
        # The signature's default: `features.0` sets one number of it and keeps the others.
        default = find_default(parse_component({"callable": node["callable"]}, full), rest[0])
        if isinstance(default, list | tuple | dict):
            inner = {**(inner or {}), rest[0]: copy.deepcopy(default)}
    return {**node, key: _set_key(inner, rest, value, full)}


# Python's types in the words of YAML.
_YAML_WORDS = {"a valid tuple": "a list", "a valid dictionary": "keys with values"}


def _explain(details: ErrorDetails, content: Mapping[str, Any]) -> str:
    key = _format_key(details["loc"], content)
    if details["type"] == "extra_forbidden":
        fields = _list_fields(Recipe, details["loc"][:-1])
        return f"unknown key {key!r}{suggest_nearest(str(details['loc'][-1]), fields)}"
    if details["type"] == "missing":
        return f"key {key!r} is missing: give it a value"
    if details["type"] == "union_tag_invalid":
        context = details.get("ctx", {})
        allowed = [tag.strip("'") for tag in str(context.get("expected_tags", "")).split(", ")]
        return f"{key}: unknown operation {context.get('tag')!r}{suggest_nearest(str(context.get('tag')), allowed)}"
    message = details["msg"].removeprefix("Value error, ")
    for of_python, of_yaml in _YAML_WORDS.items():
        message = message.replace(of_python, of_yaml)
    return f"{key}: {message[0].lower()}{message[1:]} (it is {details['input']!r})" if key else message


def _format_key(location: tuple[int | str, ...], content: Any) -> str:
    """Return the dotted key of a pydantic location, without the union tags that pydantic inserts."""
    parts, node = [], content
    for i, part in enumerate(location):
        in_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if in_list or (isinstance(node, Mapping) and part in node):
            node = node[part]
        elif i < len(location) - 1 or node is None or not isinstance(node, Mapping):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _list_fields(annotation: Any, location: Sequence[int | str]) -> list[str]:
    """Return the names of the fields of the model at a pydantic location."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not location:
            return list(annotation.model_fields)
        if location[0] in annotation.model_fields:
            return _list_fields(annotation.model_fields[str(location[0])].annotation, location[1:])
        return _list_fields(annotation, location[1:])  # a union's tag or the name of a class
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        tagged = [a for a in arguments if location and _find_tag(a) == location[0]]
        models = tagged or [a for a in arguments if _list_fields(a, location)]
        return _list_fields(models[0], location) if models else []
    if hasattr(annotation, "__metadata__"):
        return _list_fields(arguments[0], location)
    if location and isinstance(location[0], int) and arguments:
        return _list_fields(arguments[0], location[1:])
    return []


def _find_tag(annotation: Any) -> object:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    field = annotation.model_fields.get("id")
    if field is None or get_origin(field.annotation) is not Literal:
        return annotation.__name__
    return get_args(field.annotation)[0]
