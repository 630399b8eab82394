"""Edit the metadata of a package: RDF, README, cover and hashes, in a folder, a zip or both."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.packaging.consumers.format_version import version_key
from im2im_zoo.packaging.editing.changelog import add_change
from im2im_zoo.packaging.editing.changes import Changes, change_metadata, differences, entries_of
from im2im_zoo.packaging.editing.cover import fit_cover
from im2im_zoo.packaging.editing.local_source import local_source
from im2im_zoo.packaging.editing.rewrite import replace_file, rewrite_package

# The format from which documentation and covers must be mappings.
_MAPPINGS_FROM = (0, 5, 11)


@dataclass(frozen=True, slots=True)
class Edited:
    """Result of an edit.

    Attributes:
        source: the package as it was given.
        outputs: folder and zip that were written; none if nothing changed.
        changed: old and new value of each changed field of the RDF.
        files: names of the files that were written besides the RDF.
        notes: remarks for the user.
    """

    source: str
    outputs: tuple[Path, ...]
    changed: Mapping[str, tuple[Any, Any]] = field(repr=False)
    files: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "package": self.source,
            "outputs": [str(path) for path in self.outputs],
            "changed": {key: {"old": old, "new": new} for key, (old, new) in self.changed.items()},
            "files": list(self.files),
            "notes": list(self.notes),
        }


def edit_package(
    source: str | Path, changes: Changes, *, output: Path | None = None, overwrite: bool = False
) -> Edited:
    """Change the metadata of a package without training or exporting it again.

    All other fields of the RDF keep their values. The result is validated before it takes the place of the original; if
    anything fails, the original stays as it is. A folder and the zip of it beside it are both changed.

    Args:
        source: folder, zip or RDF on this disk; also one that only its metadata makes invalid.
        changes: to make.
        output: folder, or zip by its suffix, to write instead.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        PackageError: a malformed value, a package that would be invalid, or an output that cannot be written.

    Examples:
        >>> edit_package("package", Changes(license="MIT", maintainers=("Ada; github=ada",)))  # doctest: +SKIP
    """
    if changes.is_empty:
        raise PackageError("there is nothing to change: give at least one option, e.g. --license MIT")
    written: list[str] = []
    notes: list[str] = []

    def rewrite(rdf: dict[str, Any], folder: Path) -> dict[str, Any]:
        new = change_metadata(rdf, changes)
        if changes.documentation is not None:
            written.append(_replace_documentation(new, folder, changes.documentation))
        if changes.cover is not None:
            written.append(_replace_cover(new, folder, changes.cover))
        if changes.change is not None:
            written.append(_add_change(new, folder, changes.change))
        notes.extend(_notes(rdf, new, folder))
        return new

    result = rewrite_package(source, rewrite, output=output, overwrite=overwrite)
    changed = differences(result.old, result.new)
    return Edited(str(source), result.outputs, changed, tuple(dict.fromkeys(written)), tuple(notes))


def _replace_documentation(rdf: dict[str, Any], folder: Path, documentation: Path) -> str:
    """Put a Markdown file in the place of the README, and return its name."""
    if documentation.suffix != ".md" or not documentation.is_file():
        raise PackageError(f"--documentation {documentation} is not a .md file that exists")
    try:
        content = documentation.read_bytes()
        content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PackageError(f"--documentation {documentation} cannot be read as UTF-8: {error}") from error
    name = local_source(rdf.get("documentation"), folder) or "README.md"
    replace_file(folder / name, content)
    rdf["documentation"] = _entry(rdf.get("documentation"), name, folder, rdf)
    return name


def _replace_cover(rdf: dict[str, Any], folder: Path, cover: str | Path) -> str:
    """Put a picture, on this disk or in the package, in the place of the covers, and return its name."""
    inside = folder / str(cover)
    outside = Path(cover).expanduser()
    path = outside if outside.is_file() else inside
    if not path.is_file() or (path is inside and not path.resolve().is_relative_to(folder.resolve())):
        raise PackageError(f"--cover {cover} was not found, neither on this disk nor in the package")
    suffix, content = fit_cover(path)
    old = entries_of(rdf, "covers", str, dict)
    sources = [local_source(entry, folder) for entry in old]
    name = f"cover{suffix}"
    rdf["covers"] = []
    for source in sources:
        if source is not None and not _names(rdf, source):
            (folder / source).unlink(missing_ok=True)
    replace_file(folder / name, content)
    rdf["covers"] = [_entry(old[0] if old else None, name, folder, rdf)]
    return name


def _add_change(rdf: dict[str, Any], folder: Path, change: str) -> str:
    """Add a line to the README's `## Changes`, and return its name."""
    name = local_source(rdf.get("documentation"), folder)
    if name is None:
        raise PackageError("--change needs a README in the package: add one with --documentation README.md")
    path = folder / name
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    new = add_change(text, str(rdf.get("version", "")), change)
    replace_file(path, new.encode("utf-8", errors="surrogateescape"))
    rdf["documentation"] = _entry(rdf["documentation"], name, folder, rdf)
    return name


def _entry(old: object, name: str, folder: Path, rdf: Mapping[str, Any]) -> Any:
    """Return the entry of a file in the form of the old one: its name only, as older formats require, or with its hash."""
    if not isinstance(old, Mapping):
        return name if version_key(str(rdf.get("format_version"))) < _MAPPINGS_FROM else {"source": name}
    return {**old, "source": name, **({"sha256": sha256(folder / name)} if "sha256" in old else {})}


def _names(value: object, source: str) -> bool:
    """Return whether nested values name a file."""
    if isinstance(value, Mapping):
        return any(_names(inner, source) for inner in value.values())
    if isinstance(value, list):
        return any(_names(inner, source) for inner in value)
    return value == source


def _notes(old: Mapping[str, Any], new: Mapping[str, Any], folder: Path) -> list[str]:
    """Return a remark if the README still has a text that was changed in the RDF."""
    name = local_source(new.get("documentation"), folder)
    if name is None:
        return []
    text = (folder / name).read_text(encoding="utf-8", errors="replace")
    stale = [
        key
        for key in ("name", "description")
        if old.get(key) != new.get(key) and old.get(key) and str(old[key]) in text
    ]
    if stale:
        return [
            f"{name} still has the old {' and '.join(stale)}: change it there, too, with --documentation FILE.md"
        ]
    return []
