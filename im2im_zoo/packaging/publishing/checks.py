"""Checks before publishing: findings on everything that a server or its reviewers refuse, each with the command that mends it.

They work offline, so people are not looked up at GitHub and ORCID, as the server does.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.package import Package
from im2im_zoo.packaging.publishing.targets import Target
from im2im_zoo.packaging.validation.checks.format import check_files, check_format, check_unchanged, files_of
from im2im_zoo.packaging.validation.checks.metadata import check_metadata
from im2im_zoo.packaging.validation.findings import Finding, Severity

# Reviewers of bioimage.io ask for these; the Hugging Face Hub takes a model without them.
_ASKED_BY_REVIEWERS = (
    "authors",
    "maintainers",
    "description",
    "cite",
    "license",
    "tags",
    "cover",
    "documentation",
)
# Options of `edit` that mend a finding, by its code.
_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "authors": '--author "NAME; affiliation=INSTITUTE; orcid=0000-0000-0000-0000; github=USER"',
        "maintainers": '--maintainer "NAME:GITHUB_USER"',
        "description": '--description "INPUT, OUTPUT AND PURPOSE"',
        "cite": '--cite "AUTHORS YEAR: TITLE; doi=10.1234/5678"',
        "license": "--license MIT",
        "tags": "--tag TAG",
        "cover": "--cover PICTURE.png",
        "documentation": "--documentation README.md",
    }
)
_LONG = 512
_REPOSITORY = r"[\w.-]+/[\w.-]+"


@dataclass(frozen=True, slots=True)
class PublishFinding:
    """Problem of a package that is to be published, or a remark on it.

    Attributes:
        severity: "error": it will be refused, so nothing is uploaded; "warning": reviewers may ask for it; "info".
        code: stable word for programs.
        field: field of the RDF, empty for the whole package.
        message: description of the problem.
        command: command that mends it, empty if there is none.
    """

    severity: Severity
    code: str
    field: str
    message: str
    command: str = ""

    def plain(self) -> dict[str, str]:
        """Return the attributes as JSON values."""
        return {key: str(value) for key, value in asdict(self).items()}


def check_publishable(package: Package, target: Target, repository: str = "") -> tuple[PublishFinding, ...]:
    """Return what stands against publishing a package, errors first.

    Args:
        package: an open package.
        target: the server.
        repository: `OWNER/NAME` on the Hugging Face Hub.
    """
    found = [
        *_check_files(package),
        *_check_metadata(package, target),
        *_check_orcids(package),
        *_check_license(package),
        *_check_id(package, target, repository),
        *_check_format_version(package),
    ]
    order = {"error": 0, "warning": 1, "info": 2}
    return tuple(sorted(dict.fromkeys(found), key=lambda finding: order[finding.severity]))


def edit_command(source: str, options: str) -> str:
    """Return the `edit` command of a package with some options."""
    return f"im2im-zoo edit {shlex.quote(source)} {options}"


def _check_files(package: Package) -> Iterator[PublishFinding]:
    """Yield findings on files: missing, changed, outside the package, and test tensors."""
    for where, source in files_of(package):
        try:
            package.path(source)
        except PackageError as error:
            if "://" not in source:  # reported below
                yield PublishFinding("error", "refused", where, str(error))
    files = [*check_files(package), *check_unchanged(package)]
    for finding in files:
        if finding.code == "remote_file":
            yield PublishFinding("error", finding.code, finding.field, finding.message)
        else:
            yield _from_validation(finding, finding.severity)
    tensors: Mapping[str, Sequence[Any]] = {
        "inputs": package.description.inputs,
        "outputs": package.description.outputs,
    }
    for kind, described in tensors.items():
        for i, tensor in enumerate(described):
            if tensor.test_tensor is None:
                message = (
                    "there is no test tensor, so nobody can check that the model runs: export the model again"
                )
                yield PublishFinding("error", "test_tensor", f"{kind}[{i}].test_tensor", message)
    has_all = not any(f.code in ("missing_file", "remote_file", "hash") for f in files)
    for finding in check_format(package, files=has_all):
        if finding.severity == "error":
            message = f"{finding.message} (checked by bioimageio.spec)"
            yield PublishFinding("error", "format", finding.field, message, _validate_command(package))


def _check_metadata(package: Package, target: Target) -> Iterator[PublishFinding]:
    """Yield the findings of `validate` on metadata, as errors where the target's reviewers refuse the package."""
    for finding in check_metadata(package):
        severity: Severity = finding.severity
        # A remark on a licence that restricts use stays one; tags may lack a category.
        partly = finding.code == "tags" and package.description.tags
        if severity == "warning" and target.name == "bioimage.io" and not partly:
            severity = "error" if finding.code in _ASKED_BY_REVIEWERS else severity
        yield _from_validation(finding, severity, _metadata_command(package, finding))
    if len(str(package.description.description or "")) > _LONG:
        length = len(str(package.description.description))
        message = f"it has {length} characters: bioimage.io asks for {_LONG} or fewer"
        option = _OPTIONS["description"]
        yield PublishFinding(
            "warning", "description", "description", message, edit_command(package.source, option)
        )


def _check_orcids(package: Package) -> Iterator[PublishFinding]:
    for i, author in enumerate(package.description.authors):
        if author.orcid is None:
            message = f"{author.name} has no ORCID, so the work is not linked to its author"
            option = f"--author {shlex.quote(f'{author.name}; orcid=0000-0000-0000-0000')}"
            yield PublishFinding(
                "warning", "orcid", f"authors[{i}].orcid", message, edit_command(package.source, option)
            )


def _check_license(package: Package) -> Iterator[PublishFinding]:
    """Yield a warning for a licence in a file; a text that is not an SPDX identifier cannot be opened at all."""
    if isinstance(package.raw.get("license"), Mapping):
        message = "it is a file, which programs cannot read: give an SPDX identifier (https://spdx.org/licenses) if one fits"
        command = edit_command(package.source, _OPTIONS["license"])
        yield PublishFinding("warning", "license", "license", message, command)


def _check_id(package: Package, target: Target, repository: str) -> Iterator[PublishFinding]:
    """Yield an error for an `id`, which bioimage.io assigns itself, or for a missing one, by which the Hub names the repository."""
    name = package.description.id
    if target.name == "bioimage.io":
        if name is not None:
            message = f"the id {str(name)!r} is refused for a new model: bioimage.io assigns one"
            yield PublishFinding("error", "id", "id", message, edit_command(package.source, "--remove id"))
        return
    if not re.fullmatch(_REPOSITORY, repository):
        text = f"{repository!r} is not a repository" if repository else "the repository is not given"
        message = f"{text}: add --repository OWNER/NAME"
        command = f"im2im-zoo publish {shlex.quote(package.source)} --to huggingface --repository OWNER/NAME"
        yield PublishFinding("error", "repository", "", message, command)


def _check_format_version(package: Package) -> Iterator[PublishFinding]:
    from bioimageio.spec.model.v0_5 import ModelDescr

    written, newest = str(package.raw.get("format_version")), ModelDescr.implemented_format_version
    if written == newest:
        return
    command = f"im2im-zoo upgrade {shlex.quote(package.source)}"
    if written.startswith("0.5."):
        message = f"it is written in format {written}, which is accepted; the newest is {newest}"
        yield PublishFinding("info", "format_version", "format_version", message, command)
    else:
        message = (
            f"it is written in format {written}: new models need format 0.5, of which {newest} is the newest"
        )
        yield PublishFinding("error", "format_version", "format_version", message, command)


def _from_validation(finding: Finding, severity: Severity, command: str = "") -> PublishFinding:
    return PublishFinding(severity, finding.code, finding.field, finding.message, command)


def _metadata_command(package: Package, finding: Finding) -> str:
    """Return the `edit` command for a finding; a cover that is there is fitted to the limits."""
    options = _OPTIONS.get(finding.code, "")
    if finding.code == "cover" and finding.field.startswith("covers["):
        options = f"--cover {shlex.quote(_cover_source(package.raw['covers'], finding.field))}"
    return edit_command(package.source, options) if options and finding.severity != "info" else ""


def _cover_source(covers: Any, field: str) -> str:
    cover = covers[int(field.removeprefix("covers[").removesuffix("]"))]
    return str(cover.get("source") if isinstance(cover, Mapping) else cover)


def _validate_command(package: Package) -> str:
    return f"im2im-zoo validate {shlex.quote(package.source)}"
