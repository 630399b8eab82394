"""Upgrade of a package to the newest format of bioimageio.spec, by its own converter, with a check that nothing is read differently."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.core.nested import walk_values
from im2im_zoo.package.rdf import describe_rdf
from im2im_zoo.packaging.editing.changes import differences
from im2im_zoo.packaging.editing.local_source import local_source
from im2im_zoo.packaging.editing.rewrite import rewrite_package

# Renamed by the converter, so that their absence is no loss.
_MOVED = (
    "test_inputs",
    "test_outputs",
    "sample_inputs",
    "sample_outputs",
    "inputs",
    "outputs",
    "format_version",
)


@dataclass(frozen=True, slots=True)
class Upgraded:
    """Result of an upgrade.

    Attributes:
        source: the package as it was given.
        old_version, new_version: of the format.
        outputs: folder and zip that were written; none if the package has the newest format.
        changed: old and new value of each changed field of the RDF.
        lost: fields for which the newest format has no place, with their values.
    """

    source: str
    old_version: str
    new_version: str
    outputs: tuple[Path, ...]
    changed: Mapping[str, tuple[Any, Any]] = field(repr=False)
    lost: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "package": self.source,
            "old_version": self.old_version,
            "new_version": self.new_version,
            "outputs": [str(path) for path in self.outputs],
            "changed": {key: {"old": old, "new": new} for key, (old, new) in self.changed.items()},
            "lost": list(self.lost),
        }


def upgrade_package(source: str | Path, *, output: Path | None = None, overwrite: bool = False) -> Upgraded:
    """Write a package in the newest format that the installed bioimageio.spec knows.

    The new RDF must be read as the old one is: the same tensors, processing and weights. If anything fails, the original stays
    as it is. A folder and the zip of it beside it are both changed.

    Args:
        source: folder, zip or RDF on this disk, of format 0.4 or 0.5.
        output: folder, or zip by its suffix, to write instead.
        overwrite: whether an existing `output` may be replaced.

    Raises:
        PackageError: the converter cannot upgrade it, or would change its meaning.

    Examples:
        >>> upgrade_package("old.zip", output=Path("new.zip")).lost  # doctest: +SKIP
        ()
    """

    def rewrite(rdf: dict[str, Any], folder: Path) -> dict[str, Any]:
        _check_hashes(rdf, folder, str(source))
        return upgrade_rdf(rdf, folder, str(source))

    result = rewrite_package(source, rewrite, output=output, overwrite=overwrite)
    return Upgraded(
        str(source),
        str(result.old["format_version"]),
        str(result.new["format_version"]),
        result.outputs,
        differences(result.old, result.new),
        tuple(_lost(result.old, result.new)),
    )


def upgrade_rdf(rdf: Mapping[str, Any], folder: Path, source: str) -> dict[str, Any]:
    """Return an RDF in the newest format; only the format version changes where that suffices.

    Args:
        rdf: plain values, not changed.
        folder: of the package's files, whose hashes are added where the old format had none.
        source: name of the package in messages.

    Raises:
        PackageError: it cannot be upgraded, or would be read differently.
    """
    from bioimageio.spec import dump_description
    from bioimageio.spec.model.v0_5 import ModelDescr

    newest = ModelDescr.implemented_format_version
    if str(rdf.get("format_version")) == newest:
        return dict(rdf)
    path = folder / "rdf.yaml"
    description = describe_rdf(dict(rdf), path, source)
    if str(rdf.get("format_version")).startswith("0.5."):
        same = {**copy.deepcopy(dict(rdf)), "format_version": newest}
        if _reads_as(same, description, path, source):
            return same
    dumped: Any = dump_description(description)
    order = {key: i for i, key in enumerate(rdf)}
    kept = {
        key: value
        for key, value in _without_null(dumped).items()
        if key != "rdf_source" and (key in rdf or value not in ([], {}))
    }
    new = dict(sorted(kept.items(), key=lambda item: order.get(item[0], len(order))))
    new["format_version"] = newest
    _add_hashes(new, folder)
    if not _reads_as(new, description, path, source):
        raise PackageError(
            f"{source} cannot be upgraded: in format {newest} it would be read differently; export the model again"
        )
    return new


def _reads_as(rdf: dict[str, Any], description: Any, path: Path, source: str) -> bool:
    """Return whether bioimageio.spec reads an RDF as a description, apart from added hashes."""
    try:
        read = describe_rdf(rdf, path, source)
    except PackageError:
        return False
    return bool(
        _without_hashes(read.model_dump(mode="json")) == _without_hashes(description.model_dump(mode="json"))
    )


def _check_hashes(rdf: Mapping[str, Any], folder: Path, source: str) -> None:
    """Check the hashes of the old RDF, which the converter drops.

    Raises:
        PackageError: a file was changed.
    """
    for where, value in walk_values(rdf):
        if not isinstance(value, Mapping) or not isinstance(value.get("sha256"), str):
            continue
        name = local_source(value, folder)
        if name is not None and sha256(folder / name) != value["sha256"]:
            raise PackageError(
                f"{source}: {where}.sha256 is not that of {value['source']}: the file was changed, so the package is not upgraded; "
                "get the package again"
            )


def _add_hashes(rdf: dict[str, Any], folder: Path) -> None:
    """Add the hashes of weights and tensors where they are missing."""
    for where, value in walk_values(rdf):
        if (
            not isinstance(value, dict)
            or value.get("sha256")
            or not where.startswith(("weights.", "inputs", "outputs"))
        ):
            continue
        name = local_source(value, folder)
        if name is not None:
            value["sha256"] = sha256(folder / name)


def _without_hashes(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_hashes(inner) for key, inner in value.items() if key != "sha256"}
    if isinstance(value, list):
        return [_without_hashes(inner) for inner in value]
    return value


def _without_null(value: Any) -> Any:
    """Return nested values without keys that are null, which the format reads as missing; `config` is kept."""
    if isinstance(value, Mapping):
        return {
            key: inner if key == "config" else _without_null(inner)
            for key, inner in value.items()
            if inner is not None
        }
    if isinstance(value, list):
        return [_without_null(inner) for inner in value]
    return value


def _lost(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Yield the fields of the old RDF whose value is nowhere in the new one, except those of tensors, which are rebuilt."""
    kept = {repr(value) for _, value in walk_values(new) if not isinstance(value, Mapping | list)}
    for where, value in walk_values(old, without=_MOVED):
        is_value = not isinstance(value, Mapping | list) and value is not None
        # A value at the top may be written in another form, such as a time with its zone.
        if is_value and where not in new and repr(value) not in kept:
            yield f"{where}: {value}"
