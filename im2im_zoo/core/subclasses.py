"""Classes that are found by looking through the modules of a folder, so that adding one touches no other file."""

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any


def subclasses_in(folder: ModuleType, base: type, name: str | None = None) -> list[Any]:
    """Return the subclasses of a base that the modules of a folder define, by module and in the order of their definition.

    Args:
        folder: the package; its modules are imported.
        base: of the classes.
        name: of the only module to import (default: all); there are no classes if it is missing.
    """
    names = [m.name for m in pkgutil.iter_modules(folder.__path__) if name in (None, m.name)]
    modules = [importlib.import_module(f"{folder.__name__}.{name}") for name in names]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
    ]
