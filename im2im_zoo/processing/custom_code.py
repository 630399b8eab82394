"""Load Python that comes with a package or recipe: `custom` operations, groupings. The only code here that runs others' code.

Three things stand before the first line of it runs: the caller's consent, a source below `root`, and the
sha256 of the description, where there is one. The bytes that are hashed are the bytes that run.

Files that are byte for byte ours (`processing/custom/`, `grouping/`) need no consent, wherever they lie; a recipe names
those of operations `im2im_zoo/FILE.py`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.hashing import sha256, sha256_of
from im2im_zoo.processing.blocks import names, tensor_name
from im2im_zoo.processing.operations import Step

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

_OURS = Path(__file__).with_name("custom")
_PREFIX = "im2im_zoo/"


@functools.cache
def our_operations() -> Mapping[str, str]:
    """What each file of ours defines, by its sha256."""
    return {digest: path.stem for digest, path in _hashed(_OURS)}


@functools.cache
def our_grouping_names() -> Mapping[str, str]:
    """The name of each file of a grouping of ours, without its ending, by its sha256."""
    return {digest: path.stem for digest, path in _hashed(_OURS.parents[1] / "instances" / "methods")}


@functools.cache
def our_groupings() -> Mapping[str, str]:
    """What each grouping of ours defines, by its sha256: always `group`."""
    return dict.fromkeys(our_grouping_names(), "group")


def _hashed(folder: Path) -> list[tuple[str, Path]]:
    files = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return [(sha256(path), path) for path in files]


def source_file(operation: v0_5.CustomProcessingDescr, root: Path | None) -> Path:
    """Where the file of a custom operation is; nothing is run.

    Raises:
        ProcessingError: no such file below `root`, or none of that name among ours.
    """
    return _source_path(_describe(operation), str(operation.source), root)


def code_sha256(operation: v0_5.CustomProcessingDescr, root: Path | None) -> str:
    """The sha256 of the file of a custom operation.

    Raises:
        ProcessingError: as `source_file`.
    """
    return sha256(source_file(operation, root))


def our_operation(operation: v0_5.CustomProcessingDescr, root: Path | None) -> str | None:
    """The name of the operation if it is one of ours, by its bytes; else None.

    Raises:
        ProcessingError: as `source_file`.
    """
    name = our_operations().get(code_sha256(operation, root))
    return name if name == str(operation.callable) else None


def custom_step(
    operation: v0_5.CustomProcessingDescr, image: xr.DataArray, *, allow_code: bool, root: Path | None
) -> Step:
    """The step `op = callable(**kwargs)`, then `op(array)` of the whole tensor in its axes' order.

    Raises:
        ProcessingError: no consent to code that is not ours, no such file below `root`, another sha256, or code that
            fails.
    """
    what = _describe(operation)
    factory = load_callable(
        what,
        _source_path(what, str(operation.source), root),
        str(operation.callable),
        sha256=None if operation.sha256 is None else str(operation.sha256),
        ours=our_operations(),
        allow_code=allow_code,
    )
    try:
        function = factory(**operation.kwargs)
    except Exception as error:
        raise ProcessingError(f"{what} cannot be made with kwargs {operation.kwargs}: {error!r}") from error
    return Step("custom", CustomFunction(what, function), frozenset(names(image)))


def load_callable(
    what: str, path: Path, name: str, *, sha256: str | None, ours: Mapping[str, str], allow_code: bool
) -> Callable[..., Any]:
    """What a file defines under a name.

    Args:
        what: it is, for messages.
        path: of the file, which was looked for where it may be.
        sha256: that the file must have, if it is known.
        ours: by the sha256 of files that need no consent, the one name in them that needs none.
        allow_code: consent to any other.

    Raises:
        ProcessingError: no consent, another sha256, a file that cannot be imported, or no such callable in it.
    """
    code = path.read_bytes()
    digest = sha256_of(code)
    if not allow_code and ours.get(digest) != name:
        raise ProcessingError(
            f"{what} runs Python code that came with the package: read it, and allow it with --allow-code (allow_code=True) if you trust it"
        )
    if sha256 is not None and sha256 != digest:
        raise ProcessingError(
            f"{what}: {path} has sha256 {digest}, the description says {sha256}. The file was changed and "
            "has not been run: get the package again, or write the new sha256 if the change is yours"
        )
    found = getattr(_module(what, code, path), name, None)
    if not callable(found):
        raise ProcessingError(f"{what}: {path} defines no callable of that name")
    return found  # type: ignore[no-any-return]


class CustomFunction:
    """Calls the custom code on a whole tensor and checks the shape of what it gives."""

    def __init__(self, what: str, function: Callable[[Any], Any]) -> None:
        self._what, self._function = what, function

    def __call__(self, x: xr.DataArray) -> xr.DataArray:
        # A copy: the code may write into its argument, which belongs to the caller.
        values = np.array(x.to_numpy(), order="C")
        try:
            result = np.asarray(self._function(values))
        except Exception as error:
            raise ProcessingError(
                f"{self._what} failed on tensor {tensor_name(x)} {dict(x.sizes)} {x.dtype}: {error!r}"
            ) from error
        sizes = dict(zip(names(x), result.shape, strict=False))
        if result.ndim != x.ndim or any(sizes[a] != x.sizes[a] for a in names(x) if a != "channel"):
            raise ProcessingError(
                f"{self._what} made shape {result.shape} of {dict(x.sizes)}: it must keep every axis, and the size of "
                "all but the channel axis"
            )
        coords = {name: c for name, c in x.coords.items() if all(sizes[str(d)] == x.sizes[d] for d in c.dims)}
        return xr.DataArray(result, dims=x.dims, coords=coords, name=x.name, attrs=x.attrs)


def _describe(operation: v0_5.CustomProcessingDescr) -> str:
    return f"custom operation {operation.callable!r} of {operation.source}"


def _source_path(what: str, source: str, root: Path | None) -> Path:
    if source.startswith(_PREFIX):
        ours = [f"{_PREFIX}{name}.py" for name in sorted(our_operations().values())]
        if source not in ours:
            raise ProcessingError(
                f"{what}: there is none of that name among ours, which are {', '.join(ours)}"
            )
        return _OURS / source.removeprefix(_PREFIX)
    if root is None:
        raise ProcessingError(
            f"{what}: no folder is known to look for the file in; pass root, the package's folder"
        )
    return file_in(what, source, root)


def file_in(what: str, source: str, root: Path) -> Path:
    """Where a file of a package is.

    Raises:
        ProcessingError: outside of the package's folder, or not there.
    """
    try:
        path = (root / source).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
        raise ProcessingError(f"{what}: {source[:200]!r} is no path: {error}") from error
    if not path.is_relative_to(root.resolve()):
        raise ProcessingError(f"{what} lies outside the package {root}: put the file into the package")
    if not there:
        raise ProcessingError(f"{what}: there is no file {path}")
    return path


def _module(what: str, code: bytes, path: Path) -> ModuleType:
    """The module made of `code`, under a name of its own; known to `sys.modules`, as dataclasses need it.

    The same bytes at the same path are run once.
    """
    name = f"im2im_zoo_custom_{sha256_of(str(path).encode() + code)}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        # Running this file is what the caller has allowed; its sha256 was checked above.
        exec(compile(code, str(path), "exec"), module.__dict__)  # noqa: S102
    except Exception as error:
        del sys.modules[name]
        raise ProcessingError(f"{what}: {path} cannot be imported: {error!r}") from error
    return module
