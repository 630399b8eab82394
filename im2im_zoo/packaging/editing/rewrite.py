"""Rewriting of a package, all or nothing: a changed copy is checked, then takes the place of the folder, the zip, or both."""

import io
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from im2im_zoo.core.atomic import discard, hidden_sibling, move_into_place, sync_tree
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.unzip import ZipLimits, extract_zip
from im2im_zoo.package import open_package
from im2im_zoo.package.rdf import find_rdf, read_rdf
from im2im_zoo.packaging.export.output_folder import (
    check_free,
    deliver,
    is_unfinished_output,
    remove_leftovers_of,
    write_zip,
)
from im2im_zoo.packaging.try_page import TRY_PAGE, refresh_page
from im2im_zoo.packaging.validation.checks.format import check_files, check_format, check_unchanged

# Receives the RDF's values and the folder of the copy; returns the new values. Files are changed by `replace_file`.
Rewrite = Callable[[dict[str, Any], Path], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Result of rewriting a package.

    Attributes:
        old, new: values of the RDF.
        outputs: folder and zip that were written; none if nothing changed.
    """

    old: Mapping[str, Any]
    new: Mapping[str, Any]
    outputs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Places:
    """Folder and zip of a package, where each is, and that which was named."""

    folder: Path | None
    zip: Path | None


def rewrite_package(
    source: str | Path, rewrite: Rewrite, *, output: Path | None = None, overwrite: bool = False
) -> Rewritten:
    """Change a package, in its place or elsewhere. If anything fails, the original stays as it is.

    A folder and a zip of the same name beside it, with the same RDF, are both changed.

    Args:
        source: folder, zip or RDF of a package; it may be invalid, as long as the result is valid.
        rewrite: makes the changes.
        output: folder, or zip by its suffix, to write instead of `source`.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        PackageError: not a package on this disk, a result that is not valid, or an output that exists.
    """
    path = _existing(source)
    places = _places_of(path) if output is None else _output_places(output, path, overwrite)
    base = places.folder or places.zip or path
    if base.parent.is_dir():
        remove_leftovers_of(base, places.zip)
    with _unpacked(path) as (root, rdf):
        staged = hidden_sibling(base, "partial")
        try:
            base.parent.mkdir(parents=True, exist_ok=True)
            # In its place, the copy may share files with the original, as weights may be large.
            copy_file = shutil.copy2 if output is not None else _link_or_copy
            shutil.copytree(root, staged, symlinks=True, copy_function=copy_file)
            copy = staged / rdf.name
            old = read_rdf(copy, str(source))
            changed_before = _state(staged)
            new = dict(rewrite(dict(old), staged))
            if new == old and _state(staged) == changed_before and output is None:
                return Rewritten(old, new, ())
            if new != old:
                _write_rdf(copy, new, str(source))
            if (page := refresh_page(staged, base.name)) is not None:
                replace_file(staged / TRY_PAGE, page)
            _check_result(staged, root, source)
            _deliver(staged, places)
        except OSError as error:
            raise PackageError(
                f"{base} cannot be written: {error}; the package is unchanged. Use -o for another folder"
            ) from error
        finally:
            discard(staged)
    return Rewritten(old, new, tuple(p for p in (places.folder, places.zip) if p is not None))


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of the copy. The copy may share its files with the original, so they are replaced, not written into."""
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def _existing(source: str | Path) -> Path:
    path = Path(source).expanduser()
    try:
        found = path.exists()
    except (OSError, ValueError):
        found = False
    if not found:
        raise PackageError(
            f"{str(source)[:200]!r} is not a folder, zip or RDF on this disk; packaged models and addresses cannot be changed, so "
            "copy or download the package first"
        )
    if path.is_file() and path.suffix.lower() in (".yaml", ".yml"):
        return path.parent
    if path.is_file() and not zipfile.is_zipfile(path):
        raise PackageError(f"{source} is not a package: give a folder, its rdf.yaml, or a zip of it")
    return path


def _places_of(path: Path) -> _Places:
    """Return the folder and the zip to change: the given one, and its twin beside it if that has the same RDF."""
    path = path.resolve()
    if path.is_dir():
        twin = path.with_name(f"{path.name}.zip")
        if twin.is_file() and (is_unfinished_output(path) or _zip_rdf(twin) == _folder_rdf(path)):
            return _Places(path, twin)
        return _Places(path, None)
    twin = path.with_suffix("")
    is_named = path.suffix.lower() == ".zip" and twin.is_dir()
    if is_named and (is_unfinished_output(twin) or _folder_rdf(twin) == _zip_rdf(path)):
        return _Places(twin, path)
    return _Places(None, path)


def _output_places(output: Path, source: Path, overwrite: bool) -> _Places:
    if output.resolve() == source.resolve():
        raise PackageError(f"{output} is the package itself: leave out -o to change it in its place")
    if output.suffix.lower() == ".zip":
        if output.exists() and not overwrite:
            raise PackageError(f"{output} already exists: choose another name, or --overwrite to replace it")
        return _Places(None, output)
    check_free(output, None, overwrite)
    return _Places(output, None)


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the folder of a package's RDF, and the RDF; a zip is unpacked for as long."""
    if path.is_dir():
        rdf = find_rdf(path, str(path))
        yield rdf.parent, rdf
        return
    with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as temporary:
        extract_zip(path, Path(temporary), ZipLimits())
        rdf = find_rdf(Path(temporary), str(path))
        yield rdf.parent, rdf


def _folder_rdf(folder: Path) -> bytes | None:
    try:
        return find_rdf(folder, str(folder)).read_bytes()
    except (OSError, PackageError):
        return None


def _zip_rdf(path: Path) -> bytes | None:
    """Return the RDF of a zip; None if it has none."""
    try:
        with _unpacked(path) as (_, rdf):
            return rdf.read_bytes()
    except (OSError, PackageError):
        return None


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the identity of each file, which changes when it is replaced."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found[path.relative_to(folder).as_posix()] = (stat.st_ino, stat.st_mtime_ns)
    return found


def _write_rdf(path: Path, content: Mapping[str, Any], source: str) -> None:
    """Write an RDF, and check that bioimageio.spec reads it as the same values."""
    for text in (_yaml_text(content), _spec_yaml_text(content)):
        replace_file(path, text.encode())
        written = read_rdf(path, source)
        if repr(written) == repr(dict(content)):
            return
    fields = [key for key in content if repr(written.get(key)) != repr(content[key])]
    raise PackageError(
        f"{source}: the fields {', '.join(fields)} cannot be written as YAML without a change, so nothing was written; "
        "change the RDF by hand"
    )


class _Dumper(yaml.SafeDumper):
    """Writes repeated values in full, since some programs do not read aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml_text(content: Mapping[str, Any]) -> str:
    """Return YAML that readers of YAML 1.1 (Fiji) and 1.2 read alike: 1.0e-06 is a number in both, 1e-06 is not."""
    text: str = yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def _spec_yaml_text(content: Mapping[str, Any]) -> str:
    """Return YAML 1.2 as bioimageio.spec writes it."""
    from bioimageio.spec.utils import write_yaml

    stream = io.StringIO()
    write_yaml(dict(content), stream)
    return stream.getvalue()


def _check_result(staged: Path, original: Path, source: str | Path) -> None:
    """Raise an error if the copy has a problem that the original has not."""
    try:
        errors = _errors(staged)
    except PackageError as error:
        text = str(error).replace(str(staged), str(source))
        raise PackageError(
            f"the changed package would be invalid, so nothing was written:\n{text}"
        ) from error
    if errors:
        try:
            known = _errors(original)
        except PackageError:
            known = set()
        if new := sorted(errors - known):
            raise PackageError(
                f"{source}: the changed package would be invalid, so nothing was written:\n"
                + "\n".join(f"  {text}" for text in new)
            )


def _errors(folder: Path) -> set[str]:
    """Return the errors of a package's format and files."""
    with open_package(folder, must_run=False) as package:
        found = [*check_files(package), *check_unchanged(package)]
        complete = not any(f.code in ("missing_file", "remote_file", "hash") for f in found)
        found += check_format(package, files=complete)
        return {re.sub(r"\s+", " ", f"{f.field}: {f.message}") for f in found if f.severity == "error"}


def _deliver(staged: Path, places: _Places) -> None:
    """Move the copy to its places; a kill in between is completed by the same command."""
    if places.folder is not None:
        deliver(staged, places.folder, places.zip)
        return
    assert places.zip is not None  # one of the two is given
    packed = hidden_sibling(places.zip, "partial")
    try:
        write_zip(staged, packed)
        sync_tree(packed)
        move_into_place(packed, places.zip, durable=True)
    finally:
        discard(packed)
