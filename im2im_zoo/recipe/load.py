"""Reading a recipe: YAML, overrides of any key at any depth, and messages that name the full key."""

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
from im2im_zoo.recipe.components import as_component, default_of, is_component, nearest


class _Loader(yaml.SafeLoader):
    """YAML 1.1 as PyYAML reads it, but with the floats of YAML 1.2: `1e-3` is a number."""


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
    """Names of the recipes that come with im2im_zoo, and their files."""
    return {path.parent.name: path for path in sorted(model_sources().glob("*/recipe.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe, given its path, its folder, or the name of one in `model_sources/`.

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
        f"{str(source)!r} is neither a recipe file nor the name of a recipe{nearest(str(source), names)}"
    )


def load_recipe(source: str | Path, overrides: Sequence[tuple[str, object]] = ()) -> Recipe:
    """The recipe at a path or of a name, with some of its keys overridden.

    Args:
        source: see `find_recipe`.
        overrides: dotted keys and their values, e.g. ("network.kwargs.features.0", 16); a list is indexed by
            number; a key that the file lacks is added.

    Raises:
        RecipeError: no such recipe, no valid YAML, an unknown key (the message names the full key and the nearest
            right one), or a value that its key cannot have.
    """
    path = find_recipe(source)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} is no recipe: it holds {type(content).__name__}, not a mapping of keys")
    for key, value in overrides:
        content = _override(content, key.split("."), value, key)
    return make_recipe(content, str(path))


def make_recipe(content: Mapping[str, Any], source: str) -> Recipe:
    """The recipe that a mapping (read from YAML) says; `source` names it in messages.

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
    """The value of `--key=text`: YAML, so that `16`, `1e-3`, `[1, 2]`, `true` and `null` are what they look like."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 a SafeLoader
    except yaml.YAMLError:
        return text


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML that `load_recipe` reads to an equal recipe."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def _override(node: Any, keys: Sequence[str], value: object, full: str) -> Any:
    """A copy of `node` in which the value at `keys` is another one."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, list | tuple):
        if not key.isdigit() or int(key) >= len(node):
            raise RecipeError(
                f"--{full}: {key!r} is no place in a list of {len(node)}; use 0 to {len(node) - 1}"
            )
        return [_override(v, rest, value, full) if i == int(key) else v for i, v in enumerate(node)]
    if node is None:
        node = {}
    if not isinstance(node, Mapping):
        raise RecipeError(f"--{full}: there is nothing below {node!r}, so {key!r} cannot be set")
    inner: Any = node.get(key)
    if key == "kwargs" and len(rest) > 1 and is_component(node) and rest[0] not in (inner or {}):
        # A default of the signature: `features.0` sets one number of it and keeps the others.
        default = default_of(as_component({"callable": node["callable"]}, full), rest[0])
        if isinstance(default, list | tuple | dict):
            inner = {**(inner or {}), rest[0]: copy.deepcopy(default)}
    return {**node, key: _override(inner, rest, value, full)}


# What a person who writes YAML calls Python's types.
_OF_YAML = {"a valid tuple": "a list", "a valid dictionary": "keys with values"}


def _explain(details: ErrorDetails, content: Mapping[str, Any]) -> str:
    key = _key(details["loc"], content)
    if details["type"] == "extra_forbidden":
        fields = _fields_at(Recipe, details["loc"][:-1])
        return f"unknown key {key!r}{nearest(str(details['loc'][-1]), fields)}"
    if details["type"] == "missing":
        return f"key {key!r} is missing: give it a value"
    if details["type"] == "union_tag_invalid":
        context = details.get("ctx", {})
        allowed = [tag.strip("'") for tag in str(context.get("expected_tags", "")).split(", ")]
        return (
            f"{key}: there is no operation {context.get('tag')!r}{nearest(str(context.get('tag')), allowed)}"
        )
    message = details["msg"].removeprefix("Value error, ")
    for of_python, of_yaml in _OF_YAML.items():
        message = message.replace(of_python, of_yaml)
    return f"{key}: {message[0].lower()}{message[1:]} (it is {details['input']!r})" if key else message


def _key(location: tuple[int | str, ...], content: Any) -> str:
    """The dotted key of a pydantic location, without the union tags that pydantic puts between."""
    parts, node = [], content
    for i, part in enumerate(location):
        in_list = isinstance(node, list) and isinstance(part, int) and part < len(node)
        if in_list or (isinstance(node, Mapping) and part in node):
            node = node[part]
        elif i < len(location) - 1 or node is None or not isinstance(node, Mapping):
            continue
        parts.append(str(part))
    return ".".join(parts)


def _fields_at(annotation: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that stands at a pydantic location."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if not location:
            return list(annotation.model_fields)
        if location[0] in annotation.model_fields:
            return _fields_at(annotation.model_fields[str(location[0])].annotation, location[1:])
        return _fields_at(annotation, location[1:])  # a union's tag or the name of a class
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        tagged = [a for a in arguments if location and _tag(a) == location[0]]
        models = tagged or [a for a in arguments if _fields_at(a, location)]
        return _fields_at(models[0], location) if models else []
    if hasattr(annotation, "__metadata__"):
        return _fields_at(arguments[0], location)
    if location and isinstance(location[0], int) and arguments:
        return _fields_at(arguments[0], location[1:])
    return []


def _tag(annotation: Any) -> object:
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return None
    field = annotation.model_fields.get("id")
    if field is None or get_origin(field.annotation) is not Literal:
        return annotation.__name__
    return get_args(field.annotation)[0]
