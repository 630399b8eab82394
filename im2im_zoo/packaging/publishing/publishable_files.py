"""Files of a package that an upload sends: the RDF and all files that it names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256
from im2im_zoo.package import Package

RDF_NAME = "rdf.yaml"


@dataclass(frozen=True, slots=True)
class PublishableFile:
    """A file as it will be uploaded.

    Attributes:
        name: path on the server, with `/`.
        bytes: size.
        sha256: hash of the content.
        path: where it lies here.
    """

    name: str
    bytes: int
    sha256: str
    path: Path = field(repr=False)

    def plain(self) -> dict[str, Any]:
        """Return name, size and hash as JSON values."""
        content = asdict(self)
        del content["path"]
        return content


def list_publishable_files(package: Package) -> tuple[PublishableFile, ...]:
    """Return the files of a package that bioimageio.spec would put into its zip, the RDF last.

    The RDF is sent byte for byte as it is, so that its format version and its file names stay those that were validated. Files
    that are missing or outside the package are left out; `checks` reports them.
    """
    from bioimageio.spec import ValidationContext, get_package_content

    # Without checks, which hash each file once more.
    with ValidationContext(root=package.root.resolve(), perform_io_checks=False, log_warnings=False):
        content: Mapping[str, Any] = get_package_content(package.description)
    sources = {str(entry.source) for entry in content.values() if not isinstance(entry, Mapping)}
    found = []
    for source in sorted(sources):
        try:
            path = package.path(source)
        except PackageError:
            continue
        if path.is_file():
            found.append(_describe_file(PurePosixPath(source).as_posix(), path))
    return (*found, _describe_file(RDF_NAME, package.rdf))


def list_other_files(package: Package, sent: tuple[PublishableFile, ...]) -> tuple[str, ...]:
    """Return the names of files in the package's folder that the RDF does not name, so that they are not sent."""
    known = {file.path.resolve() for file in sent}
    root = package.root
    files = (p for p in sorted(root.rglob("*")) if p.is_file() and p.resolve() not in known)
    return tuple(p.relative_to(root).as_posix() for p in files)


def describe_folder(folder: Path) -> tuple[PublishableFile, ...]:
    """Return all files of a folder, as they will be uploaded."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return tuple(_describe_file(p.relative_to(folder).as_posix(), p) for p in files)


def _describe_file(name: str, path: Path) -> PublishableFile:
    return PublishableFile(name, path.stat().st_size, sha256(path), path)
