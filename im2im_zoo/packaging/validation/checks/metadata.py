"""Checks of metadata that bioimage.io requires of a model and the format does not enforce."""

import re
from collections.abc import Mapping

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.picture_file import read_picture_size
from im2im_zoo.package import Package
from im2im_zoo.packaging.validation.drafts import tag_categories
from im2im_zoo.packaging.validation.findings import Finding

_COVER_BYTES = 500_000
# Characters; a shorter description cannot describe input and output.
_SHORT = 20


def check_metadata(package: Package) -> list[Finding]:
    """Return warnings for metadata that bioimage.io requires and the format does not enforce."""
    description = package.description
    found = []

    def warn(code: str, where: str, message: str) -> None:
        found.append(Finding("warning", code, where, message))

    if not description.authors:
        warn("authors", "authors", "nobody is named: list who made the model, {name, affiliation, orcid}")
    elif not any(getattr(p, "github_user", None) for p in (*description.maintainers, *description.authors)):
        warn(
            "maintainers",
            "maintainers",
            "no maintainer given: add one with --maintainer NAME:GITHUB_USER",
        )
    if len(str(description.description or "")) < _SHORT:
        message = "it is too short: describe input, output and purpose in one or two sentences"
        warn("description", "description", message)
    if not description.cite:
        warn("cite", "cite", "nothing to cite: list {text, doi} of the work that describes the model")
    if description.license is None:
        warn(
            "license",
            "license",
            "no licence, so nobody may use it: give an SPDX identifier such as MIT or CC-BY-4.0",
        )
    elif re.search(r"-(NC|ND)\b", str(description.license)):
        found.append(_restricted(str(description.license)))
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
    covers = package.raw.get("covers")
    for i, cover in enumerate(covers if isinstance(covers, list) else ()):
        found += _check_cover(package, f"covers[{i}]", cover)
    found += _check_documentation(package)
    return found


def _restricted(licence: str) -> Finding:
    what = "commercial use" if "-NC" in licence else "changed versions, such as one trained further"
    message = f"{licence} does not allow {what}: choose one such as CC-BY-4.0 if that is not meant"
    return Finding("info", "license", "license", message)


def _check_cover(package: Package, where: str, cover: object) -> list[Finding]:
    source = str(cover.get("source") if isinstance(cover, Mapping) else cover)
    if "://" in source or source.lower().endswith(".svg") or not package.path(source).is_file():
        return []
    path, found = package.path(source), []
    if path.stat().st_size > _COVER_BYTES:
        message = f"{source} has {path.stat().st_size} bytes: bioimage.io allows less than 500 KB"
        found.append(Finding("warning", "cover", where, message))
    try:
        width, height = read_picture_size(path)
    except ImageError as error:
        return [*found, Finding("error", "cover", where, f"{error}; give a png, jpg or gif")]
    if not any(abs(width / height - ratio) < 0.05 for ratio in (1, 2)):
        message = f"{source} is {width} x {height}: bioimage.io requires a width of once or twice the height"
        found.append(Finding("warning", "cover", where, message))
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
        message = f"{source} has no heading `## Validation`: describe the metrics of the model, the images and the method"
        return [Finding("warning", "documentation", "documentation", message)]
    return []
