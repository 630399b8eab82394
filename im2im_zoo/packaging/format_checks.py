"""Checks of a package's RDF and files against the format and the rules of bioimage.io. Runs no weights."""

import copy
import gc
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from im2im_zoo.package import Package
from im2im_zoo.packaging.drafts import tag_categories
from im2im_zoo.packaging.findings import Finding, Severity

_COVER_BYTES = 500_000
_ABOUT_FILES = ("inputs", "outputs", "weights", "documentation", "attachments")


def check_files(package: Package) -> list[Finding]:
    """An error for each file that the RDF names and the package does not have."""
    found = []
    for where, source in _files(package.description.model_dump(mode="json", exclude_none=True), ""):
        if "://" in source:
            found.append(
                Finding("warning", "remote_file", where, f"{source} is not in the package and not checked")
            )
        elif not package.path(source).is_file():
            found.append(Finding("error", "missing_file", where, f"the file {source} is missing"))
    return [f for f in found if f.severity == "error"]


def check_format(package: Package, *, files: bool = True) -> list[Finding]:
    """What bioimageio.spec finds: the format, test and sample tensors, files. Nothing is asked of the network.

    Two readings, since checking files also looks up people at GitHub: one of everything without files, and one of the
    files (unless not `files`) without people.
    """
    said = _read(package, dict(package.raw), files=False)
    if not files:
        return said
    anonymous = copy.deepcopy(dict(package.raw))
    anonymous.pop("maintainers", None)
    for person in (*(anonymous.get("authors") or ()), *(anonymous.get("packaged_by") or ())):
        person.pop("github_user", None)
    of_files = _read(package, anonymous, files=True)
    return said + [f for f in of_files if f.severity == "error" or f.field.startswith(_ABOUT_FILES)]


def _read(package: Package, raw: dict[str, Any], *, files: bool) -> list[Finding]:
    from bioimageio.spec import ValidationContext, build_description

    context = ValidationContext(
        root=package.root,
        perform_io_checks=files,
        log_warnings=False,
        # A known address is not requested; hashes are checked by `package.check_hashes`.
        known_files=dict.fromkeys(_addresses(raw)) if files else {},
        update_hashes=files,
        progressbar=False,
    )
    with warnings.catch_warnings():
        # bioimageio.spec 0.5.12 leaves open the files that it hashes, and one for each error's text.
        warnings.simplefilter("ignore", ResourceWarning)
        found = _findings(build_description(copy.deepcopy(raw), context=context, format_version="latest"))
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


def check_metadata(package: Package) -> list[Finding]:
    """Warnings for what bioimage.io asks of a model and the format does not enforce."""
    description = package.description
    found = []

    def warn(code: str, where: str, message: str) -> None:
        found.append(Finding("warning", code, where, message))

    if not description.authors:
        warn("authors", "authors", "nobody is named: list who made the model, {name, affiliation, orcid}")
    if not description.cite:
        warn("cite", "cite", "nothing to cite: list {text, doi} of the work that describes the model")
    if description.license is None:
        warn(
            "license",
            "license",
            "no licence, so nobody may use it: give an SPDX identifier such as MIT or CC-BY-4.0",
        )
    if not description.tags:
        warn("tags", "tags", "no tags: nobody will find it; give one of each of bioimage.io's categories")
    else:
        # bioimageio.spec 0.5.12 means to warn of this and does not.
        missing = [c for c, tags in tag_categories().items() if not set(tags) & set(description.tags)]
        if missing:
            known = "; ".join(f"{c}: {', '.join(tag_categories()[c])}" for c in missing)
            warn("tags", "tags", f"add one tag of each of bioimage.io's categories: {known}")
    if not package.raw.get("covers"):
        warn("cover", "covers", "no cover: add a png of 2:1 or 1:1 below 500 KB that shows input and result")
    for cover in package.raw.get("covers") or ():
        found += _check_cover(package, cover)
    found += _check_documentation(package)
    return found


def _check_cover(package: Package, cover: object) -> list[Finding]:
    from PIL import Image, UnidentifiedImageError

    source = str(cover.get("source") if isinstance(cover, Mapping) else cover)
    if "://" in source or source.endswith(".svg") or not package.path(source).is_file():
        return []
    path, found = package.path(source), []
    if path.stat().st_size > _COVER_BYTES:
        message = f"{source} has {path.stat().st_size} bytes: bioimage.io wants less than 500 KB"
        found.append(Finding("warning", "cover", "covers", message))
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError) as error:
        return [*found, Finding("error", "cover", "covers", f"{source} is no image: {error}")]
    if not any(abs(width / height - ratio) < 0.05 for ratio in (1, 2)):
        message = f"{source} is {width} x {height}: bioimage.io wants a width of once or twice the height"
        found.append(Finding("warning", "cover", "covers", message))
    return found


def _check_documentation(package: Package) -> list[Finding]:
    documentation = package.description.documentation
    if documentation is None:
        message = "there is none: add a README.md that says what the model was trained on and how well it did"
        return [Finding("warning", "documentation", "documentation", message)]
    source = str(documentation.source)
    if "://" in source or not package.path(source).is_file():
        return []
    text = package.path(source).read_text(encoding="utf-8", errors="replace")
    if not re.search(r"#.*[vV]alidation", text):
        message = (
            f"{source} has no heading `## Validation`: say how well the model did, on what, measured how"
        )
        return [Finding("warning", "documentation", "documentation", message)]
    return []


def _files(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every file that a description names, with its field."""
    if isinstance(value, Mapping):
        if isinstance(value.get("source"), str):
            yield where, value["source"]
        for key, inner in value.items():
            # `config` may hold anything; its keys are no files.
            if key != "config" or where:
                yield from _files(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _files(inner, f"{where}[{i}]")


def _addresses(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _addresses(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _addresses(inner)
    elif isinstance(value, str) and value.startswith(("http://", "https://")):
        yield value


def _field(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")
