"""Checks that the files of a package are safe to open: their location and their headers. No file is loaded or run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from im2im_zoo.core.array_file import map_npy
from im2im_zoo.core.errors import Im2ImError, ImageError, PackageError, ProcessingError
from im2im_zoo.core.picture_file import read_picture_size
from im2im_zoo.engines import vet_weights, weights_formats
from im2im_zoo.packaging.validation.checks.base import Checks
from im2im_zoo.packaging.validation.checks.format import files_of
from im2im_zoo.processing.custom_code import our_operation

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff")
_TEXT_BYTES = 16 * 1024**2


def check_safety(checks: Checks) -> frozenset[str]:
    """Check every file that the RDF names, and add unsafe ones to the findings.

    Returns:
        The weights formats that may be run.
    """
    _check_places(checks)
    if checks.has("refused"):
        return frozenset()
    _check_headers(checks)
    safe = frozenset(name for name in checks.package.formats() if _check_weights(checks, name))
    if not checks.has("unsafe"):
        count = len({source for _, source in files_of(checks.package)})
        checks.note("safety", f"{count} files lie inside the package, and none is larger than it seems")
    return safe


def skips_custom(checks: Checks) -> bool:
    """Return whether outputs have operations of the package that need consent; add a finding for each."""
    package, found = checks.package, False
    for i, tensor in enumerate(package.outputs):
        for operation in tensor.postprocessing:
            try:
                asks = operation.id == "custom" and our_operation(operation, package.root) is None
            except ProcessingError:
                continue  # its file is missing, which is reported elsewhere
            if asks:
                message = (
                    f"skipped: {str(operation.callable)!r} of {operation.source} is Python code that came with the package, so the "  # type: ignore[union-attr]
                    "weights were run and not compared with the test output; allow it with --allow-code if you trust it"
                )
                checks.add("info", "skipped", f"outputs[{i}].postprocessing", message)
                found = True
    return found


def _check_places(checks: Checks) -> None:
    for where, source in files_of(checks.package):
        if "://" in source:
            continue
        try:
            path = checks.package.path(source)
            if path.exists() and not path.is_file():
                checks.add(
                    "error", "refused", where, f"{source} is no regular file: put the file itself there"
                )
        except (PackageError, OSError, ValueError) as error:
            checks.add("error", "refused", where, f"{_short(error)}: put the file into the package")


def _check_headers(checks: Checks) -> None:
    for where, path in _present(checks):
        suffix = path.suffix.lower()
        try:
            if where.endswith("test_tensor"):
                map_npy(path)
            elif suffix in _PICTURES:
                read_picture_size(path)
            elif where == "documentation" and path.stat().st_size > _TEXT_BYTES:
                raise ImageError(f"{path.name} has {path.stat().st_size} bytes: refused; shorten it")
        except (Im2ImError, OSError) as error:
            # A cover that is not a picture is reported by the metadata checks.
            if not (where.startswith("covers") and "is not an image" in str(error)):
                checks.add("error", "unsafe", where, _short(error))


def _check_weights(checks: Checks, name: str) -> bool:
    package, where = checks.package, f"weights.{name}"
    entry = package.weights_entry(name)
    if name not in weights_formats() or "://" in str(entry.source):  # `check_files` reports an address
        return False
    try:
        path = package.path(entry)
        if not path.is_file():
            return False
        vet_weights(name, path, root=package.root, allow_code=checks.allow_code)
        if name == "pytorch_state_dict" and not checks.allow_code:
            _check_plain(checks, path)
    except (PackageError, OSError) as error:
        checks.add("error", "unsafe", where, _short(error))
        return False
    return True


def _check_plain(checks: Checks, path: Path) -> None:
    """Read a state dict without its network, and note its number of arrays."""
    from im2im_zoo.engines.state_dict import read_state_dict

    state = read_state_dict(path)
    checks.note(
        "safety", f"{path.name} is a plain state dict of {len(state)} arrays; its network was not run"
    )


def _present(checks: Checks) -> Iterator[tuple[str, Path]]:
    for where, source in files_of(checks.package):
        if "://" not in source:
            path = checks.package.path(source)
            if path.is_file():
                yield where, path


def _short(error: Any) -> str:
    return " ".join(str(error).split())[:600]
