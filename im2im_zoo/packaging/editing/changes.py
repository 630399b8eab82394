"""Changes of an RDF's metadata, as a function of its plain values: nothing is read or written here."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from im2im_zoo.core.errors import PackageError
from im2im_zoo.packaging.consumers.format_version import oldest_format, version_key
from im2im_zoo.packaging.editing.entries import (
    check_license,
    merge_entry,
    parse_citation,
    parse_maintainer,
    parse_person,
)

Part = Literal["major", "minor", "patch"]
# Fields that a package may lack.
REMOVABLE = (
    "authors", "maintainers", "cite", "tags", "license", "covers", "git_repo", "version", "id", "training_data", "parent",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Changes of a package's metadata. What is None or empty stays as it is.

    Attributes:
        name, description, license, git_repo, version, id: new values.
        training_data: id of a data set at bioimage.io.
        authors, maintainers: `NAME; affiliation=...; orcid=...; github=...`; completes the person of the same name, or adds one.
        cite: `TEXT; doi=...` or `TEXT; url=...`; completes the citation of the same DOI, or adds one.
        tags: added.
        remove: fields to remove before all else, of `REMOVABLE`.
        bump: part of the version to raise by one.
        change: line for the section `## Changes` of the README, under the new version.
        documentation: a `.md` file that replaces the README.
        cover: a picture that replaces the covers, or the name of one in the package; it is fitted to bioimage.io's limits.
    """

    name: str | None = None
    description: str | None = None
    license: str | None = None
    git_repo: str | None = None
    version: str | None = None
    id: str | None = None
    training_data: str | None = None
    authors: tuple[str, ...] = ()
    maintainers: tuple[str, ...] = ()
    cite: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    bump: Part | None = None
    change: str | None = None
    documentation: Path | None = None
    cover: str | Path | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to change."""
        return all(getattr(self, field.name) in (None, ()) for field in fields(self))


def change_metadata(rdf: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """Return an RDF with changed metadata; all other fields keep their values and order.

    Args:
        rdf: plain values, not changed.
        changes: to make. Those of files (`change`, `documentation`, `cover`) are made elsewhere.

    Raises:
        PackageError: a malformed value, or a version that cannot be raised.
    """
    new = copy.deepcopy(dict(rdf))
    for field in changes.remove:
        if field not in REMOVABLE:
            raise PackageError(f"--remove {field} is not possible: choose one of {', '.join(REMOVABLE)}")
        new.pop(field, None)
    if changes.license is not None:
        check_license(changes.license)
    if changes.version is not None:
        _check_version(changes.version)
    for field in ("name", "description", "license", "git_repo", "version", "id"):
        if (value := getattr(changes, field)) is not None:
            new[field] = value
    if changes.bump is not None:
        new["version"] = raise_version(new.get("version"), changes.bump)
    if changes.training_data is not None:
        new["training_data"] = {"id": changes.training_data}
    for text in changes.authors:
        person = parse_person(text, option="--author")
        new["authors"] = merge_entry(entries_of(new, "authors", dict), person, ["name", "orcid"])
    for text in changes.maintainers:
        person = parse_maintainer(text)
        new["maintainers"] = merge_entry(
            entries_of(new, "maintainers", dict), person, ["name", "github_user"]
        )
    for text in changes.cite:
        new["cite"] = merge_entry(entries_of(new, "cite", dict), parse_citation(text), ["doi", "url", "text"])
    if changes.tags:
        new["tags"] = list(dict.fromkeys([*entries_of(new, "tags", str), *changes.tags]))
    return _with_sufficient_format(rdf, new)


def entries_of(rdf: Mapping[str, Any], field: str, *kinds: type) -> list[Any]:
    """Return the entries of a list in an RDF; none if it is missing.

    Raises:
        PackageError: it is not a list of these kinds.
    """
    entries = rdf.get(field)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, kinds) for entry in entries):
        raise PackageError(f"{field} of the RDF is not a valid list: add --remove {field} to begin a new one")
    return entries


def raise_version(version: object, part: Part) -> str:
    """Return a version with one part raised by one and the later ones at zero.

    Raises:
        PackageError: the package has no version of the form 1.2.3.

    Examples:
        >>> raise_version("1.2.3", "minor")
        '1.3.0'
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?", str(version if version is not None else ""))
    if match is None:
        known = (
            "there is no version" if version is None else f"the version {version} is not of the form 1.2.3"
        )
        raise PackageError(f"--bump {part}: {known}; set one with --version 1.0.0")
    numbers = [int(number or 0) for number in match.groups()]
    position = ("major", "minor", "patch").index(part)
    raised = [*numbers[:position], numbers[position] + 1, *([0] * (2 - position))]
    return ".".join(map(str, raised))


def _check_version(version: str) -> None:
    from bioimageio.spec.generic.v0_3 import Version

    try:
        Version(version)
    except ValueError as error:
        raise PackageError(f"--version {version!r} is not a version: give one such as 1.0.0") from error


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the fields that differ between two RDFs, with the old and the new value; None where one lacks it."""
    keys = dict.fromkeys([*old, *new])
    return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}


def _with_sufficient_format(old: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return an RDF with the format version that its new values need, if its own one is an older 0.5."""
    written = str(new.get("format_version", ""))
    if not re.fullmatch(r"0\.5\.\d+", written):
        return new
    try:
        needed, before = oldest_format(new), oldest_format(old)
    except (
        AttributeError,
        TypeError,
        ValueError,
    ):  # an RDF that is not valid, as the check of the result reports
        return new
    if needed != before and version_key(needed) > version_key(written):
        new["format_version"] = needed
    return new
