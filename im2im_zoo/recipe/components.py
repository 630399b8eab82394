"""Components: a dotted path with its arguments, checked against the signature before it is built.

    {callable: monai.networks.nets.BasicUNet, kwargs: {spatial_dims: 2, features: [16, 16, 32, 64, 128, 16]}}

Components nest in `kwargs`; `call: false` passes the class or function itself (with `kwargs` bound to it).
Importing and calling run code, so only what `trust` knows may be used without consent; the user has to allow any other package
by name (`allow_code`).
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
from im2im_zoo.recipe.trust import TRUSTED, find_download, reason_not_to_import, reason_to_refuse


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

    @property
    def package(self) -> str:
        """Name of the Python package that the dotted path begins with."""
        return self.callable.split(".")[0]


def is_component(value: object) -> bool:
    """Whether a plain value (from a YAML file) describes a component."""
    return isinstance(value, Component) or (isinstance(value, Mapping) and "callable" in value)


def parse_component(value: object, where: str) -> Component:
    """Parse a component from a plain mapping.

    Args:
        value: a mapping, or a component, which is returned as it is.
        where: the recipe's key, for messages.

    Raises:
        ComponentError: it has other keys than `callable`, `kwargs` and `call`.
    """
    if isinstance(value, Component):
        return value
    try:
        return Component.model_validate(value)
    except ValueError as error:
        raise ComponentError(
            f"{where} is not a component but {value!r}: give `callable` (a dotted path), `kwargs` (a mapping) and "
            f"`call` (true or false), and nothing else"
        ) from error


def with_current_names(content: Any) -> Any:
    """Return plain values (of a YAML file) with the current dotted paths of components."""
    if isinstance(content, Mapping):
        renamed = {key: with_current_names(value) for key, value in content.items()}
        path = renamed.get("callable")
        return {**renamed, "callable": current_name(path)} if isinstance(path, str) else renamed
    if isinstance(content, list | tuple):
        values = map(with_current_names, content)
        return list(values) if isinstance(content, list) else tuple(values)
    return content


def resolve_component(path: str, where: str, allow_code: Collection[str] = ()) -> Callable[..., Any]:
    """Import the class or function at a dotted path.

    Args:
        path: e.g. "torch.nn.MSELoss"; of im2im_zoo also as an earlier release named it.
        where: the recipe's key, for messages.
        allow_code: packages whose code may be imported and called, besides those of `TRUSTED`.

    Raises:
        ComponentError: not trusted, not importable, not found, a module, or not callable.
    """
    path = current_name(path)
    package = path.split(".")[0]
    if package not in TRUSTED and package not in allow_code:
        raise ComponentError(
            f"{where}: {path!r} would import and run the package {package!r}, which is not one of "
            f"{', '.join(sorted(TRUSTED))}; if you trust it, pass --allow-code {package}"
        )
    consent = f"if you trust it, pass --allow-code {package}"
    refusal = None if package in allow_code else reason_not_to_import(path)
    if refusal is not None and "." in path:
        raise ComponentError(f"{where}: {path!r} {refusal}; {consent}")
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ComponentError(_explain_import_failure(path, where, error)) from error
    if isinstance(found, ModuleType):
        classes = [name for name, value in vars(found).items() if inspect.isclass(value) and name[0] != "_"]
        raise ComponentError(
            f"{where}: {path!r} is a module; choose one of its classes: {', '.join(sorted(classes)[:20]) or 'none'}"
        )
    if not callable(found):
        raise ComponentError(f"{where}: {path!r} is {type(found).__name__}, not a class or function")
    refusal = None if package in allow_code else reason_to_refuse(found)
    if refusal is not None:
        raise ComponentError(f"{where}: {path!r} {refusal}; {consent}")
    return found  # type: ignore[no-any-return]


def check_component(
    component: Component,
    where: str,
    *,
    allow_code: Collection[str] = (),
    given: Sequence[str] = (),
    kind: type | tuple[type, ...] | None = None,
    inner_kind: type | tuple[type, ...] | None = None,
    places: Collection[str] = (),
) -> None:
    """Check a component and those nested in it, without building any.

    Args:
        component: the component.
        where: its key in the recipe, for messages.
        allow_code: see `resolve_component`.
        given: names of arguments that the caller adds when it builds or calls it.
        kind: class that it has to be or inherit from, if it is a class.
        inner_kind: the same for the trusted components nested in it.
        places: names of arguments that may name a file or folder, because the caller checks where it lies.

    Raises:
        ComponentError: an untrusted or unknown path, an unknown or missing argument, another kind of class, or an argument
            that needs consent; the message names the full key.
    """
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    if kind is not None and inspect.isclass(found) and not issubclass(found, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise ComponentError(
            f"{where}.callable: {component.callable} is not a {' or '.join(k.__name__ for k in kinds)}; choose one that is"
        )
    for key, value in component.kwargs.items():
        for path, inner in find_components(value, f"{where}.kwargs.{key}"):
            check_component(
                inner,
                path,
                allow_code=allow_code,
                kind=None if inner.package in allow_code else inner_kind,
                inner_kind=inner_kind,
            )
    _check_arguments(component, found, where, given)
    _check_consent(component, found, where, allow_code, places)


def build_component(
    component: Component, where: str, *args: Any, allow_code: Collection[str] = (), **given: Any
) -> Any:
    """Build a component and those nested in it.

    Args:
        component: the component.
        where: its key in the recipe, for messages.
        args, given: arguments added to those of the recipe.
        allow_code: see `resolve_component`.

    Raises:
        ComponentError: it rejects its arguments; the message holds its own message and the key.
    """
    found = resolve_component(component.callable, f"{where}.callable", allow_code)
    kwargs = {k: build_value(v, f"{where}.kwargs.{k}", allow_code) for k, v in component.kwargs.items()}
    if not component.call:
        return functools.partial(found, *args, **kwargs, **given) if kwargs or args or given else found
    try:
        return found(*args, **{**kwargs, **given})
    except Im2ImError:
        raise
    except Exception as error:  # third-party code can raise anything, for instance for a missing dependency
        raise ComponentError(
            f"{where}: {component.callable} rejects its arguments: {type(error).__name__}: {error}; correct its kwargs"
        ) from error


def find_default(component: Component, argument: str) -> Any:
    """Return the default of an argument in the signature of a trusted component; None if there is none."""
    try:
        found = resolve_component(component.callable, "callable")  # nothing untrusted is imported for it
        parameter = inspect.signature(found).parameters.get(argument)
    except (ComponentError, TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def suggest_nearest(word: str, words: Collection[str]) -> str:
    """Return `; did you mean 'x'?` for the closest word, or a list of all words if none is close."""
    close = difflib.get_close_matches(word, list(words), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; choose one of {', '.join(sorted(words))}" if words else "; it takes none"


def find_components(value: object, where: str) -> list[tuple[str, Component]]:
    """Return the components in a value of a recipe, each with its key; `where` is that of the value."""
    if is_component(value):
        return [(where, parse_component(value, where))]
    if isinstance(value, Mapping):
        return [found for k, v in value.items() for found in find_components(v, f"{where}.{k}")]
    if isinstance(value, list | tuple):
        return [found for i, v in enumerate(value) for found in find_components(v, f"{where}.{i}")]
    return []


def build_value(value: object, where: str, allow_code: Collection[str]) -> object:
    """Return a value of a recipe with all components in it built; `where` is its key."""
    if is_component(value):
        return build_component(parse_component(value, where), where, allow_code=allow_code)
    if isinstance(value, Mapping):
        return {k: build_value(v, f"{where}.{k}", allow_code) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [build_value(v, f"{where}.{i}", allow_code) for i, v in enumerate(value)]
    return value


def _check_arguments(
    component: Component, found: Callable[..., Any], where: str, given: Sequence[str]
) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return  # a builtin without a signature: it checks its arguments when it is called
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
                    f"{suggest_nearest(key, [n for n in named if n not in given])}"
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


def _check_consent(
    component: Component,
    found: Callable[..., Any],
    where: str,
    allow_code: Collection[str],
    places: Collection[str],
) -> None:
    """Refuse arguments of a trusted component that would make it download, or use a file of the recipe's choice."""
    if component.package in allow_code:
        return
    refused = find_download(found, component.kwargs, places)
    if refused is not None:
        key, value = refused
        raise ComponentError(
            f"{where}.kwargs.{key}: with {value!r}, {component.callable} would download, or read or write files; set it to "
            f"{'false' if value is True else 'null'}, or pass --allow-code {component.package} if you trust it"
        )


def _explain_import_failure(path: str, where: str, error: Exception) -> str:
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
    return f"{where}: {path!r} is not a dotted path: {error}"
