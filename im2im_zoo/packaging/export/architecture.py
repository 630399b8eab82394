"""The RDF's architecture of a state dict: a library's class, or one source file for the package.

A network of im2im_zoo, one with components inside, or one of a file that imports im2im_zoo, becomes `architecture.py`, in
which all code of im2im_zoo that it needs is copied: torch, and MONAI for its networks, are enough to build it.
"""

import ast
import importlib.util
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.nested import walk_values
from im2im_zoo.packaging.export.plain_values import yaml_value
from im2im_zoo.recipe.components import Component, is_component, parse_component

FILE = "architecture.py"
_OURS = "im2im_zoo"
_CITATION = f"{_OURS}.core.citation"
_ERROR = '''class ComponentError(ValueError):
    """Arguments of a network that do not go together."""
'''
_DOCSTRING = '"""The network of this package, without its weights."""'


def write_architecture(component: Component, folder: Path, root: Path | None = None) -> dict[str, Any]:
    """Describe how a network is built, and write the source file that it needs, if any, into a package.

    Args:
        component: component that builds the network.
        folder: folder of the package.
        root: folder of the recipe's own modules.
    Returns:
        The RDF's `architecture`.
    Raises:
        PackageError: the RDF has no form for it.
    """
    if not component.call:
        raise PackageError("the RDF cannot describe how it is built: it is a class that is not called")
    module, _, name = component.callable.rpartition(".")
    is_nested = any(where and is_component(value) for where, value in walk_values(component.kwargs))
    own = _own_file(module, root)
    if own is None and not is_nested:
        return {"import_from": module, "callable": name, "kwargs": yaml_value(component.kwargs)}
    if own is not None and not is_nested and _is_standalone(own, module, root):
        shutil.copyfile(own, folder / own.name)
        return {**_file(folder / own.name), "callable": name, "kwargs": yaml_value(component.kwargs)}
    bundle = _Bundle(root)
    expression = bundle.expression(component)
    function = ""
    if is_nested:
        bundle.imports["import torch"] = None
        function = f"def network() -> torch.nn.Module:\n    {_DOCSTRING}\n    return {expression}"
    text = bundle.text(function)
    (folder / FILE).write_text(text, encoding="utf-8")
    how = {"callable": "network"} if is_nested else {"callable": name, "kwargs": yaml_value(component.kwargs)}
    return {**_file(folder / FILE), **how}


def libraries(described: Mapping[str, Any], folder: Path) -> list[str]:
    """Return the libraries that an architecture needs, without Python's own."""
    if "source" not in described:
        return [str(described["import_from"]).split(".")[0]]
    tree = ast.parse((folder / described["source"]).read_text(encoding="utf-8"))
    names = {name.split(".")[0] for node in ast.walk(tree) for name in _imported_modules(node)}
    return sorted(names - sys.stdlib_module_names)


@dataclass
class _Bundle:
    """Modules to write into one file: `imports` of libraries, and the code of each module after the modules that it imports."""

    root: Path | None
    imports: dict[str, None] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def expression(self, value: Any) -> str:
        """Return a Python expression for a value of a recipe."""
        if is_component(value):
            component = parse_component(value, "network")
            module, _, name = component.callable.rpartition(".")
            if _own_file(module, self.root) is None:
                self.imports[f"import {module}"] = None
                name = component.callable
            else:
                self.add(module)
            given = "".join(f", {k}={self.expression(v)}" for k, v in component.kwargs.items())
            if component.call:
                return f"{name}({given.removeprefix(', ')})"
            if given:
                self.imports["import functools"] = None
            return f"functools.partial({name}{given})" if given else name
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{k!r}: {self.expression(v)}" for k, v in value.items()) + "}"
        if isinstance(value, list | tuple):
            return "[" + ", ".join(map(self.expression, value)) + "]"
        return repr(value)

    def add(self, module: str) -> None:
        """Add a module, after those that it imports.

        Raises:
            PackageError: the module renames an import of im2im_zoo, or defines a name of another module.
        """
        path = _own_file(module, self.root)
        if module in self.modules or path is None:
            return
        text = path.read_text(encoding="utf-8")
        tree, lines = ast.parse(text), text.splitlines()
        self.modules[module] = ""  # added first, so that circular imports end
        dropped: set[int] = set()
        for node in tree.body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                dropped.update(range(node.lineno - 1, node.end_lineno or node.lineno))
                self._import(node, module)
            if isinstance(node, ast.ClassDef):
                cited = (n for n in node.body if "cite" in _defined_names(n))
                dropped.update(i for n in cited for i in range(n.lineno - 1, (n.end_lineno or n.lineno) + 1))
            for name in _defined_names(node):
                if self.names.setdefault(name, module) != module:
                    raise PackageError(f"{module} and {self.names[name]} both have a {name}: rename one")
        if ast.get_docstring(tree) is not None:
            dropped.update(range(tree.body[0].end_lineno or 1))
        body = "\n".join(line for i, line in enumerate(lines) if i not in dropped).strip()
        self.modules[module] = self.modules.pop(module) + body  # after the modules that it imports

    def _import(self, node: ast.Import | ast.ImportFrom, module: str) -> None:
        source = getattr(node, "module", None) or ""
        if source == _CITATION:
            return  # `cite` is for the RDF, and left out of the file
        if source == f"{_OURS}.core.errors":
            if {alias.name for alias in node.names} != {"ComponentError"}:
                raise PackageError(f"{module} imports other errors of im2im_zoo than ComponentError")
            self.modules.setdefault(source, _ERROR.strip())
        elif _is_ours(source) or _own_file(source, self.root) is not None:
            if any(alias.asname for alias in node.names):
                raise PackageError(f"{module} imports something of {source} by another name")
            self.add(source)
        elif any(_is_ours(alias.name) for alias in node.names):
            raise PackageError(f"{module} imports im2im_zoo as a whole, not names of its modules")
        else:
            self.imports[ast.unparse(node)] = None

    def text(self, function: str) -> str:
        """Return the content of the file."""
        head = f'"""The network of this package, of im2im_zoo {version(_OURS)} (MIT). Needs nothing of im2im_zoo."""\n'
        imports = "\n".join(sorted(self.imports, key=lambda line: (line.startswith("from"), line)))
        parts = [f"# {name}\n\n{body}" for name, body in self.modules.items()]
        return "\n\n\n".join(p for p in (head + "\n" + imports, *parts, function) if p) + "\n"


def _file(path: Path) -> dict[str, str]:
    return {"source": path.name, "sha256": sha256(path)}


def _is_standalone(path: Path, module: str, root: Path | None) -> bool:
    """Return whether a module beside the recipe imports neither im2im_zoo nor another module of that folder."""
    imported = [
        name for node in ast.walk(ast.parse(path.read_text("utf-8"))) for name in _imported_modules(node)
    ]
    return not _is_ours(module) and all(_own_file(name, root) is None for name in imported)


def _is_ours(module: str) -> bool:
    return module == _OURS or module.startswith(f"{_OURS}.")


def _own_file(module: str, root: Path | None) -> Path | None:
    """Return the file of a module of im2im_zoo or beside the recipe; None for modules of libraries."""
    if _is_ours(module):
        found = importlib.util.find_spec(module)
        return Path(found.origin) if found is not None and found.origin else None
    path = None if root is None or not re.fullmatch(r"\w+", module) else root / f"{module}.py"
    return path if path is not None and path.is_file() else None


def _imported_modules(node: ast.AST) -> Sequence[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def _defined_names(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    yield from (target.id for target in targets if isinstance(target, ast.Name))
