"""Load Python that comes with a package or recipe: `custom` operations, groupings. The only module that runs such code.

Three things stand before the first line of it runs: the caller's consent, a source below `root`, and the
sha256 of the description, where there is one. The bytes that are hashed are the bytes that run.

Files that are byte for byte those of a version of im2im_zoo (`core.released_files`) need no consent, wherever they lie; a
recipe names today's operations `im2im_zoo/FILE.py`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from im2im_zoo.core.errors import ProcessingError
from im2im_zoo.core.hashing import sha256, sha256_of
from im2im_zoo.core.released_files import find_released

if TYPE_CHECKING:
    from bioimageio.spec.model import v0_5

_OURS = Path(__file__).with_name("custom")
_PREFIX = "im2im_zoo/"


def source_file(operation: v0_5.CustomProcessingDescr, root: Path | None) -> Path:
    """Return the path of the file of a custom operation. Runs nothing.

    Raises:
        ProcessingError: no such file below `root`, or none of that name among ours.
    """
    return _source_path(describe_custom(operation), str(operation.source), root)


def code_sha256(operation: v0_5.CustomProcessingDescr, root: Path | None) -> str:
    """Return the sha256 of the file of a custom operation.

    Raises:
        ProcessingError: as `source_file`.
    """
    return sha256(source_file(operation, root))


def our_operation(operation: v0_5.CustomProcessingDescr, root: Path | None) -> str | None:
    """Return the name of the operation if its file is one of ours, of any version, by its bytes; else None.

    Raises:
        ProcessingError: as `source_file`.
    """
    name = str(operation.callable)
    return None if find_released("operation", code_sha256(operation, root), name) is None else name


def load_callable(
    what: str, path: Path, name: str, *, sha256: str | None, ours: Mapping[str, str], allow_code: bool
) -> Callable[..., Any]:
    """Return what a file defines under a name.

    Args:
        what: its description, for messages.
        path: of the file, which has passed `file_in`.
        sha256: that the file must have (None: any).
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


def describe_custom(operation: v0_5.CustomProcessingDescr) -> str:
    """Return how errors name a custom operation."""
    return f"custom operation {operation.callable!r} of {operation.source}"


def _source_path(what: str, source: str, root: Path | None) -> Path:
    if source.startswith(_PREFIX):
        ours = [f"{_PREFIX}{path.name}" for path in sorted(_OURS.glob("*.py")) if path.stem != "__init__"]
        if source not in ours:
            raise ProcessingError(
                f"{what}: there is none of that name among ours; use one of {', '.join(ours)}"
            )
        return _OURS / source.removeprefix(_PREFIX)
    if root is None:
        raise ProcessingError(
            f"{what}: no folder is known to look for the file in; pass root, the package's folder"
        )
    return file_in(what, source, root)


def file_in(what: str, source: str, root: Path) -> Path:
    """Return the path of a file of a package.

    Raises:
        ProcessingError: the file is outside of the package's folder, or missing.
    """
    try:
        path = (root / source).resolve()
        there = path.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # too long, a zero byte, links in a circle
        raise ProcessingError(f"{what}: {source[:200]!r} is no path: {error}") from error
    if not path.is_relative_to(root.resolve()) or ".." in Path(source).parts:
        raise ProcessingError(f"{what} lies outside the package {root}: put the file into the package")
    if not there:
        raise ProcessingError(f"{what}: there is no file {path}")
    return path


def _module(what: str, code: bytes, path: Path) -> ModuleType:
    """Run `code` as a module under a name of its own, which is in `sys.modules`, as dataclasses need it.

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
