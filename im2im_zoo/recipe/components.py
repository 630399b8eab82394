"""Components: a dotted path with its arguments, checked against the signature before anything is built.

    {callable: monai.networks.nets.BasicUNet, kwargs: {spatial_dims: 2, features: [16, 16, 32, 64, 128, 16]}}

Components nest in `kwargs`; `call: false` passes the class or function itself (with `kwargs` bound to it).
Importing runs code, so only the classes of `TRUSTED` packages are used freely; for anything else the
person has to name its package (`allow_code`).
"""

import difflib
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from im2im_zoo.core.errors import ComponentError, Im2ImError
from im2im_zoo.core.moved_names import current_name

TRUSTED = frozenset({"im2im_zoo", "monai", "pytorch_lightning", "torch", "torchmetrics"})


class Component(BaseModel):
    """A class or function by its dotted path, and the keyword arguments to call it with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    callable: str = Field(
        description="Dotted path of a class or function, e.g. monai.networks.nets.BasicUNet."
    )
    kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments; a value may be a component itself."
    )
    call: bool = Field(
        default=True, description="false passes the class or function itself, `kwargs` bound to it."
    )


def is_component(value: object) -> bool:
    """Whether a plain value (of a YAML file) stands for a component."""
    return isinstance(value, Component) or (isinstance(value, Mapping) and "callable" in value)


def as_component(value: object, where: str) -> Component:
    """The component that a plain mapping stands for.

    Raises:
        ComponentError: it has other keys than `callable`, `kwargs` and `call`.
    """
    if isinstance(value, Component):
        return value
    try:
        return Component.model_validate(value)
    except ValueError as error:
        raise ComponentError(
            f"{where} is no component: it takes `callable` (a dotted path), `kwargs` (a mapping) and "
            f"`call` (true or false), and nothing else; it is {value!r}"
        ) from error


def with_current_names(content: Any) -> Any:
    """Return plain values (of a YAML file) in which components have the dotted paths of today."""
    if isinstance(content, Mapping):
        renamed = {key: with_current_names(value) for key, value in content.items()}
        path = renamed.get("callable")
        return {**renamed, "callable": current_name(path)} if isinstance(path, str) else renamed
    if isinstance(content, list | tuple):
        values = map(with_current_names, content)
        return list(values) if isinstance(content, list) else tuple(values)
    return content


def resolve(path: str, where: str, allow_code: Collection[str] = ()) -> Callable[..., Any]:
    """The class or function at a dotted path.

    Args:
        path: e.g. "torch.nn.MSELoss"; of im2im_zoo also as an earlier release named it.
        where: the recipe's key, for messages.
        allow_code: packages whose code may be imported and called beside those of `TRUSTED`.

    Raises:
        ComponentError: not trusted, not importable, not there, a module, or not callable.
    """
    path = current_name(path)
    package = path.split(".")[0]
    if package not in TRUSTED and package not in allow_code:
        raise ComponentError(
            f"{where}: {path!r} would import and run the package {package!r}, which is not one of "
            f"{', '.join(sorted(TRUSTED))}; if you trust it, say so with --allow-code {package}"
        )
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ComponentError(_not_found(path, where, error)) from error
    if isinstance(found, ModuleType):
        classes = [name for name, value in vars(found).items() if inspect.isclass(value) and name[0] != "_"]
        raise ComponentError(
            f"{where}: {path!r} is a module; name one of its classes: {', '.join(sorted(classes)[:20]) or 'none'}"
        )
    if not callable(found):
        raise ComponentError(f"{where}: {path!r} is {type(found).__name__}, not a class or function")
    if package not in allow_code and package != "im2im_zoo" and not inspect.isclass(found):
        raise ComponentError(
            f"{where}: {path!r} is a function; a recipe may use the classes of {package} freely, but for its "
            f"functions say --allow-code {package}"
        )
    return found  # type: ignore[no-any-return]


def check(
    component: Component,
    where: str,
    *,
    allow_code: Collection[str] = (),
    given: Sequence[str] = (),
    kind: type | tuple[type, ...] | None = None,
) -> None:
    """Check a component and those within it, without building any.

    Args:
        component: what to check.
        where: its key in the recipe, for messages.
        allow_code: see `resolve`.
        given: names of arguments that the caller will add when it builds or calls it.
        kind: class that it must be (or be a subclass of), if it is a class.

    Raises:
        ComponentError: an untrusted or unknown path, an argument that its signature does not have, one that it
            needs and is not given, or another kind of thing; the message names the full key.
    """
    found = resolve(component.callable, f"{where}.callable", allow_code)
    if kind is not None and inspect.isclass(found) and not issubclass(found, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ComponentError(
            f"{where}.callable: {component.callable} is no {' or '.join(k.__name__ for k in kinds)}"
        )
    for key, value in component.kwargs.items():
        for path, inner in _components_within(value, f"{where}.kwargs.{key}"):
            check(inner, path, allow_code=allow_code)
    _check_arguments(component, found, where, given)


def build(
    component: Component, where: str, *args: Any, allow_code: Collection[str] = (), **given: Any
) -> Any:
    """Build a component and those within it.

    Args:
        component: what to build.
        where: its key in the recipe, for messages.
        args, given: arguments added to those of the recipe.
        allow_code: see `resolve`.

    Raises:
        ComponentError: what it refuses: its own message, and the key.
    """
    found = resolve(component.callable, f"{where}.callable", allow_code)
    kwargs = {k: _build_value(v, f"{where}.kwargs.{k}", allow_code) for k, v in component.kwargs.items()}
    if not component.call:
        return functools.partial(found, *args, **kwargs, **given) if kwargs or args or given else found
    try:
        return found(*args, **{**kwargs, **given})
    except Im2ImError:
        raise
    except (
        Exception
    ) as error:  # other people's code raises anything, as for what it needs and is not installed
        raise ComponentError(
            f"{where}: {component.callable} refuses its arguments: {type(error).__name__}: {error}"
        ) from error


def default_of(component: Component, argument: str) -> Any:
    """The default of an argument in the component's signature, or None if it has none."""
    try:
        found = resolve(component.callable, "callable", (component.callable.split(".")[0],))
        parameter = inspect.signature(found).parameters.get(argument)
    except (ComponentError, TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def nearest(word: str, words: Collection[str]) -> str:
    """`; did you mean 'x'?` for the word that is closest, or a list of all if none is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; it takes {', '.join(sorted(words))}" if words else "; it takes none"


def _components_within(value: object, where: str) -> list[tuple[str, Component]]:
    if is_component(value):
        return [(where, as_component(value, where))]
    if isinstance(value, Mapping):
        return [found for k, v in value.items() for found in _components_within(v, f"{where}.{k}")]
    if isinstance(value, list | tuple):
        return [found for i, v in enumerate(value) for found in _components_within(v, f"{where}.{i}")]
    return []


def _build_value(value: object, where: str, allow_code: Collection[str]) -> object:
    if is_component(value):
        return build(as_component(value, where), where, allow_code=allow_code)
    if isinstance(value, Mapping):
        return {k: _build_value(v, f"{where}.{k}", allow_code) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_build_value(v, f"{where}.{i}", allow_code) for i, v in enumerate(value)]
    return value


def _check_arguments(
    component: Component, found: Callable[..., Any], where: str, given: Sequence[str]
) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # a builtin without a signature: it will speak for itself
    kinds = inspect.Parameter
    named = {
        n: p
        for n, p in signature.parameters.items()
        if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
    }
    if not any(p.kind is kinds.VAR_KEYWORD for p in signature.parameters.values()):
        for key in component.kwargs:
            if key not in named:
                raise ComponentError(
                    f"{where}.kwargs.{key}: {component.callable} takes no {key!r}"
                    f"{nearest(key, [n for n in named if n not in given])}"
                )
    missing = [
        n
        for n, p in named.items()
        if p.default is kinds.empty and n not in component.kwargs and n not in given
    ]
    if component.call and missing:
        hint = "" if given else ", or `call: false` to pass it uncalled"
        raise ComponentError(
            f"{where}.kwargs: {component.callable} needs {', '.join(missing)}: give them in `kwargs`{hint}"
        )


def _not_found(path: str, where: str, error: Exception) -> str:
    parts = path.split(".")
    for n in range(len(parts) - 1, 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:n]))
        except ImportError as missing:
            if n == 1:
                return f"{where}: {path!r} cannot be imported: {missing}; install {parts[0]!r} in this environment"
            continue
        public = [name for name in dir(module) if not name.startswith("_")]
        close = difflib.get_close_matches(parts[n], public, n=1, cutoff=0.6)
        hint = f"; did you mean {'.'.join([*parts[:n], close[0]])!r}?" if close else ""
        return f"{where}: there is no {parts[n]!r} in {'.'.join(parts[:n])!r}{hint}"
    return f"{where}: {path!r} is no dotted path: {error}"
