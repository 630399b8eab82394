"""Checks of a package's RDF and files: that they exist, are unchanged, and valid by bioimageio.spec."""

import copy
import gc
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.nested import walk_values
from im2im_zoo.package import Package
from im2im_zoo.package.format_0_4 import make_convertible
from im2im_zoo.package.hashes import check_hashes
from im2im_zoo.packaging.validation.findings import Finding, Severity

_ABOUT_FILES = ("inputs", "outputs", "weights", "documentation", "attachments")


def files_of(package: Package) -> list[tuple[str, str]]:
    """Return every file that the RDF names, as (field, source), except in `config`, which may hold anything."""
    content = package.description.model_dump(mode="json", exclude_none=True)
    return _files(content, without=("config",))


def check_files(package: Package) -> list[Finding]:
    """Return a finding for each file of the RDF that is missing, or for weights without a hash.

    Files outside the package are reported by the safety checks.
    """
    found = []
    for where, source in files_of(package):
        if "://" in source:
            message = f"{source} is not in the package, so it was not checked: put the file into the package"
            found.append(Finding("warning", "remote_file", where, message))
            continue
        try:
            if not package.path(source).exists():
                message = f"the file {source} is missing: add it, or take the field out of the RDF"
                found.append(Finding("error", "missing_file", where, message))
        except (PackageError, OSError, ValueError):
            continue
    for name in package.formats():
        if package.weights_entry(name).sha256 is None:
            message = "it has no SHA-256, so that a change would not be detected: add `sha256`"
            found.append(Finding("warning", "unhashed", f"weights.{name}", message))
    return found


def check_unchanged(package: Package) -> list[Finding]:
    """Return an error for each file whose SHA-256 is not the one that the RDF gives."""
    fields = {source: where for where, source in reversed(_files(package.raw))}
    fields |= {source: where for where, source in reversed(files_of(package))}
    return [
        Finding(
            "error",
            "hash",
            fields.get(file, file),
            f"the SHA-256 of {file} is {actual}, the RDF gives {expected}: the file was changed; get the package again, or "
            "give the new hash if the change is yours",
        )
        for file, expected, actual in check_hashes(package)
    ]


def check_format(package: Package, *, files: bool = True) -> list[Finding]:
    """Return the findings of bioimageio.spec: format, test and sample tensors, files. It works offline.

    Two readings, since checking files also looks up people at GitHub: one of everything without files, and one of the
    files (unless not `files`) without people.
    """
    findings = _read(package, dict(package.raw), files=False)
    if not files:
        return findings
    of_files = _read(package, _anonymous(package), files=True)
    return findings + [f for f in of_files if f.severity == "error" or f.field.startswith(_ABOUT_FILES)]


def described_with_files(package: Package) -> Any:
    """Return the description of bioimageio.spec with checks of all files, without people; it works offline.

    Raises:
        Exception: of any kind, from broken files.
    """
    return _described(package, _anonymous(package), files=True)


def _anonymous(package: Package) -> dict[str, Any]:
    """Return the RDF without people, whom bioimageio.spec would look up at GitHub."""
    anonymous = copy.deepcopy(dict(package.raw))
    anonymous.pop("maintainers", None)
    for people in (anonymous.get("authors"), anonymous.get("packaged_by")):
        for person in people if isinstance(people, list) else ():
            if isinstance(person, dict):
                person.pop("github_user", None)
    return anonymous


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Provide a folder for files that bioimageio leaves behind, such as a generated cover; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as folder:
        before, tempfile.tempdir = tempfile.tempdir, folder
        try:
            yield Path(folder)
        finally:
            tempfile.tempdir = before


def _described(package: Package, raw: dict[str, Any], *, files: bool) -> Any:
    from bioimageio.spec import ValidationContext, build_description

    context = ValidationContext(
        root=package.root,
        perform_io_checks=files,
        log_warnings=False,
        # A known address is not requested; hashes are checked by `package_hashes.check_hashes`.
        known_files=dict.fromkeys(_addresses(raw)) if files else {},
        update_hashes=files,
        progressbar=False,
    )
    return build_description(make_convertible(raw), context=context, format_version="latest")


def _read(package: Package, raw: dict[str, Any], *, files: bool) -> list[Finding]:
    with warnings.catch_warnings(), temporary_folder():
        # bioimageio.spec 0.5.12 leaves open the files that it hashes, and one for each error's text.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            description = _described(package, raw, files=files)
        except Exception as error:  # noqa: BLE001 what it makes of broken files may be anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return [Finding("error", "format", "", f"bioimageio.spec cannot check it: {reason}")]
        found = _findings(description)
        gc.collect()
    return found


def _findings(description: Any) -> list[Finding]:
    summary = description.validation_summary
    found = []
    for detail in summary.details if summary else ():
        for error in detail.errors:
            found.append(Finding("error", "format", _field(error.loc), " ".join(error.msg.split())))
        for warning in detail.warnings:
            severity: Severity = "info" if warning.severity <= 20 else "warning"
            found.append(Finding(severity, "format", _field(warning.loc), " ".join(warning.msg.split())))
    return found


def _files(content: Mapping[str, Any], without: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return the field and the source of every file that a description names, except under some of its keys."""
    values = walk_values(content, without=without)
    sources = ((where, v.get("source")) for where, v in values if isinstance(v, Mapping))
    return [(where, source) for where, source in sources if isinstance(source, str)]


def _addresses(raw: Mapping[str, Any]) -> list[str]:
    return [v for _, v in walk_values(raw) if isinstance(v, str) and v.startswith(("http://", "https://"))]


def _field(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")
