"""Entries of an RDF as texts that a user types: `NAME; orcid=...; github=...` and `TEXT; doi=...`."""

import difflib
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from im2im_zoo.core.errors import PackageError

# Keys that a user types, and fields of the format.
_PERSON_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "affiliation": "affiliation",
        "orcid": "orcid",
        "github": "github_user",
        "github_user": "github_user",
        "email": "email",
    }
)
_CITE_KEYS: Mapping[str, str] = MappingProxyType({"doi": "doi", "url": "url"})
_PERSON_EXAMPLE = '"Ada Lovelace; affiliation=University; orcid=0000-0002-1825-0097; github=ada"'
_CITE_EXAMPLE = '"Lovelace et al. 2024: Counting cells; doi=10.1234/5678"'
_ORCID = r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]"
_DOI = r"10\.\d{4,9}/\S+"
_GITHUB = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"


def parse_person(text: str, *, option: str) -> dict[str, str]:
    """Return the fields of an author or maintainer, e.g. {name, orcid}.

    Args:
        text: `NAME; KEY=VALUE; ...` with the keys affiliation, orcid, github and email.
        option: its name in messages.

    Raises:
        PackageError: it has another form, or a malformed ORCID or GitHub user.

    Examples:
        >>> parse_person("Ada Lovelace; github=ada", option="--author")
        {'name': 'Ada Lovelace', 'github_user': 'ada'}
    """
    name, fields = _split(text, _PERSON_KEYS, option, _PERSON_EXAMPLE)
    if "/" in name or "\\" in name:
        raise PackageError(f"{option} {text!r}: a name must not have a slash; give it as {_PERSON_EXAMPLE}")
    if "orcid" in fields:
        fields["orcid"] = fields["orcid"].removeprefix("https://orcid.org/")
    for key, pattern, what in (
        ("orcid", _ORCID, "ORCID (16 digits in groups of four)"),
        ("github_user", _GITHUB, "GitHub user"),
    ):
        if key in fields and not re.fullmatch(pattern, fields[key]):
            raise PackageError(
                f"{option} {text!r}: {fields[key]!r} is not an {what}; give it as {_PERSON_EXAMPLE}"
                if key == "orcid"
                else f"{option} {text!r}: {fields[key]!r} is not a {what}; give it as {_PERSON_EXAMPLE}"
            )
    return {"name": name, **fields}


def parse_maintainer(text: str) -> dict[str, str]:
    """Return the fields of a maintainer, who must have a GitHub user; `NAME:GITHUB_USER` is short for one.

    Raises:
        PackageError: it is malformed, or has no GitHub user.
    """
    short = re.fullmatch(rf"([^;:=]+):\s*({_GITHUB})\s*", text)
    person = parse_person(
        text if short is None else f"{short[1].strip()}; github={short[2]}", option="--maintainer"
    )
    if "github_user" not in person:
        raise PackageError(
            f'--maintainer {text!r} has no GitHub user, which the format requires; give it as "Ada Lovelace:ada"'
        )
    return person


def parse_citation(text: str) -> dict[str, str]:
    """Return the fields of a citation, {text, doi} or {text, url}.

    Raises:
        PackageError: it has neither a DOI nor an address, or a malformed one.
    """
    words, fields = _split(text, _CITE_KEYS, "--cite", _CITE_EXAMPLE)
    if "doi" in fields:
        fields["doi"] = re.sub(r"^(https?://(dx\.)?doi\.org/|doi:)", "", fields["doi"])
        if not re.fullmatch(_DOI, fields["doi"]):
            raise PackageError(f"--cite {text!r}: {fields['doi']!r} is not a DOI; give it as {_CITE_EXAMPLE}")
    if not fields:
        raise PackageError(f"--cite {text!r} has no doi= or url=; give it as {_CITE_EXAMPLE}")
    return {"text": words, **fields}


def check_license(name: str) -> None:
    """Check that a licence is an SPDX identifier.

    Raises:
        PackageError: it is not; the message has the nearest ones.
    """
    from bioimageio.spec.utils import get_spdx_licenses

    known = [str(entry["licenseId"]) for entry in get_spdx_licenses()["licenses"]]
    if name not in known:
        by_lower = {k.lower(): k for k in known}
        typed = re.sub(r"[\s_]+", "-", name.lower())
        near = [by_lower[n] for n in difflib.get_close_matches(typed, by_lower, 3, 0.5)]
        hint = ", ".join(near) or "MIT, BSD-3-Clause, CC-BY-4.0"
        raise PackageError(
            f"--license {name!r} is not an SPDX identifier (https://spdx.org/licenses); did you mean {hint}?"
        )


def merge_entry(
    entries: Sequence[Mapping[str, Any]], new: Mapping[str, str], keys: Sequence[str]
) -> list[dict[str, Any]]:
    """Return entries with a new one: it completes the entry that agrees in one of the keys, or is appended.

    Args:
        entries: of a list in the RDF.
        new: the entry to add.
        keys: fields that identify an entry; upper and lower case are equal.
    """
    merged = [dict(entry) for entry in entries]
    for entry in merged:
        if any(key in new and _same(entry.get(key), new[key]) for key in keys):
            entry.update(new)
            return merged
    return [*merged, dict(new)]


def _same(old: object, new: str) -> bool:
    return old is not None and str(old).strip().casefold() == new.strip().casefold()


def _split(text: str, keys: Mapping[str, str], option: str, example: str) -> tuple[str, dict[str, str]]:
    """Split `WORDS; key=value; ...` from its end, as the words may have semicolons."""
    parts, fields = text.split(";"), {}
    while len(parts) > 1 and (match := re.fullmatch(r"\s*([A-Za-z_]+)\s*=\s*(.*?)\s*", parts[-1])):
        key, value = match[1].lower(), match[2]
        if key not in keys:
            raise PackageError(
                f"{option} {text!r}: unknown key {key!r}, choose from {', '.join(keys)}; give it as {example}"
            )
        if not value:
            raise PackageError(f"{option} {text!r}: {key} is empty; give it as {example}")
        fields[keys[key]] = value
        parts.pop()
    words = ";".join(parts).strip()
    if not words or re.match(r"[A-Za-z_]+\s*=", words):
        raise PackageError(f"{option} {text!r} does not begin with a name or text; give it as {example}")
    return words, dict(reversed(fields.items()))
