"""A complete package for tests of publishing and editing: a copy of the packaged model, with all metadata."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from im2im_zoo.core.resources import packaged_models

# bioimageio.spec asks GitHub about any user that it does not know of; tests need no network.
KNOWN_USER = "bioimageiobot"


def copy_package(folder: Path, **fields: Any) -> Path:
    """Copy the packaged model into a folder, with some fields of its RDF replaced, or removed where they are None."""
    (source,) = (packaged_models() / "nuclei_2d").iterdir()
    shutil.copytree(source, folder)
    rdf = read_fields(folder)
    rdf["maintainers"] = [{"name": "Ada Lovelace", "github_user": KNOWN_USER}]
    rdf["authors"] = [{"name": "Ada Lovelace", "orcid": "0000-0002-1825-0097"}]
    rdf |= fields
    write_fields(folder, {key: value for key, value in rdf.items() if value is not None})
    return folder


def read_fields(folder: Path) -> dict[str, Any]:
    """Read the RDF of a folder."""
    content: dict[str, Any] = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    return content


def write_fields(folder: Path, rdf: dict[str, Any]) -> None:
    """Write the RDF of a folder."""
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf, sort_keys=False), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder, by their paths in it."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
