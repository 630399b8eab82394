"""Publication of a package, prepared without a network: files, fields and findings. Its dry run prints this and sends nothing."""

import copy
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError, PublishingError
from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging.publishing.checks import PublishFinding, check_publishable, edit_command
from im2im_zoo.packaging.publishing.huggingface_folder import write_huggingface_folder
from im2im_zoo.packaging.publishing.publishable_files import (
    PublishableFile,
    describe_folder,
    list_other_files,
    list_publishable_files,
)
from im2im_zoo.packaging.publishing.targets import Target, server_of, target_of


@dataclass(frozen=True, slots=True)
class Publication:
    """A package and everything that publishing it would send.

    Attributes:
        package: open while the publication is in use.
        server: address of the server.
        repository: `OWNER/NAME` on the Hugging Face Hub; empty for bioimage.io.
        files: files that would be sent.
        left_out: files in the package's folder that its RDF does not name.
        manifest: fields of the RDF that would be sent.
        findings: what stands against it, errors first.
    """

    package: Package = field(repr=False)
    target: Target
    server: str
    repository: str
    files: tuple[PublishableFile, ...]
    left_out: tuple[str, ...]
    manifest: Mapping[str, Any] = field(repr=False)
    findings: tuple[PublishFinding, ...]

    @property
    def errors(self) -> tuple[PublishFinding, ...]:
        """Findings for which nothing is uploaded."""
        return tuple(f for f in self.findings if f.severity == "error")

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    def plain(self) -> dict[str, Any]:
        """Return the publication as JSON values."""
        return {
            "package": self.package.source,
            "target": self.target.name,
            "server": self.server,
            "repository": self.repository,
            "publishable": not self.errors,
            "bytes": self.total_bytes,
            "files": [file.plain() for file in self.files],
            "left_out": list(self.left_out),
            "fields": dict(self.manifest),
            "findings": [finding.plain() for finding in self.findings],
        }


@contextmanager
def prepare_publication(source: str | Path, to: str, *, repository: str = "") -> Iterator[Publication]:
    """Prepare to publish a package, without a network; the package is open within the `with`.

    Args:
        source: a package, as for `open_package`.
        to: "bioimage.io" or "huggingface".
        repository: `OWNER/NAME` on the Hugging Face Hub.

    Raises:
        PackageError: it is not a package.
        PublishingError: an unknown target, or an address of a server that is not safe.

    Examples:
        >>> with prepare_publication("nuclei_2d", "bioimage.io") as publication:
        ...     print(publication.files[0].name, publication.target.name)
        README.md bioimage.io
    """
    target = target_of(to)
    if repository and target.name == "bioimage.io":
        raise PublishingError("--repository is for --to huggingface: bioimage.io names models itself")
    server = server_of(target)
    with _open(source) as package:
        findings = check_publishable(package, target, repository)
        files, manifest = _content(package, target, repository, findings)
        left_out = list_other_files(package, list_publishable_files(package))
        yield Publication(package, target, server, repository, files, left_out, manifest, findings)


def _open(source: str | Path) -> Package:
    """Open a package; where only its licence keeps it from that, name the command that mends it."""
    try:
        return open_package(source, must_run=False)
    except PackageError as error:
        if "\n  license" not in str(error):
            raise
        command = edit_command(str(source), "--license MIT")
        raise PackageError(
            f"{source}: the license is not an SPDX identifier (https://spdx.org/licenses); give one such as MIT or CC-BY-4.0:\n"
            f"    {command}"
        ) from error


def _content(
    package: Package, target: Target, repository: str, findings: tuple[PublishFinding, ...]
) -> tuple[tuple[PublishableFile, ...], Mapping[str, Any]]:
    """Return the files and fields to send; those of the Hub can be written only if the package is complete."""
    manifest = copy.deepcopy(dict(package.raw))
    if target.name == "bioimage.io":
        return list_publishable_files(package), manifest
    manifest["id"] = repository.partition("/")[2]
    if any(f.severity == "error" for f in findings):
        return list_publishable_files(package), manifest
    with tempfile.TemporaryDirectory(prefix="im2im_zoo_") as temporary:
        folder = Path(temporary) / "model"
        write_huggingface_folder(package, repository, folder)
        return describe_folder(folder), manifest
