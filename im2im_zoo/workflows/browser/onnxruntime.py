"""The files of onnxruntime-web: from a folder, else from its npm package, downloaded once into the user's cache.

Version, address and SHA-256 are pinned in `onnxruntime.json`; a file that differs is refused, wherever it comes from.
"""

import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from im2im_zoo.core.download import DownloadPolicy, download
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256_of

# What the build in a checkout has installed.
_BUILD = Path(__file__).resolve().parents[3] / "web" / "node_modules" / "onnxruntime-web" / "dist"


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file of onnxruntime-web."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class OnnxRuntimeWeb:
    """The pinned version of onnxruntime-web.

    Attributes:
        version: of the npm package.
        url: https address of its archive.
        sha256: of the archive.
        files: by the names that the page has for them.
    """

    version: str
    url: str
    sha256: str
    files: Mapping[str, PinnedFile]


def pinned() -> OnnxRuntimeWeb:
    """Return the version that pages are written with."""
    plain: dict[str, Any] = json.loads(
        Path(__file__).with_name("onnxruntime.json").read_text(encoding="utf-8")
    )
    files = {name: PinnedFile(**file) for name, file in plain["files"].items()}
    return OnnxRuntimeWeb(plain["version"], plain["url"], plain["sha256"], files)


def read_onnxruntime(
    folder: Path | None = None,
    *,
    report: Callable[[int, int | None], None] | None = None,
    timeout_s: float | None = None,
) -> dict[str, bytes]:
    """Return the files of onnxruntime-web that a page needs, by the names that the page has for them.

    Args:
        folder: `dist` of an installed npm package (default: that of the build in a checkout, else the download).
        report: called with the bytes received and the total, while it is downloaded.
        timeout_s: seconds to wait for an answer or a further byte (default: that of `DownloadPolicy`).

    Raises:
        PackageError: the folder lacks a file or has another version, or the download fails.
    """
    wanted = pinned()
    if folder is not None:
        return _from_folder(folder, wanted)
    if all((_BUILD / file.name).is_file() for file in wanted.files.values()):
        try:
            return _from_folder(_BUILD, wanted)
        except PackageError:
            pass  # the build has another version
    policy = DownloadPolicy.from_environment()
    if timeout_s is not None:
        policy = replace(policy, timeout_s=timeout_s)
    return _from_archive(download(wanted.url, sha256=wanted.sha256, policy=policy, report=report), wanted)


def _from_folder(folder: Path, wanted: OnnxRuntimeWeb) -> dict[str, bytes]:
    found = {}
    for name, file in wanted.files.items():
        path = folder / file.name
        if not path.is_file():
            raise PackageError(
                f"{folder} has no {file.name}; give the folder `dist` of the npm package onnxruntime-web {wanted.version}"
            )
        content = path.read_bytes()
        if sha256_of(content) != file.sha256:
            raise PackageError(
                f"{path} is not that of onnxruntime-web {wanted.version}: its SHA-256 differs; install that version"
            )
        found[name] = content
    return found


def _from_archive(archive: Path, wanted: OnnxRuntimeWeb) -> dict[str, bytes]:
    names = {f"package/dist/{file.name}": name for name, file in wanted.files.items()}
    found: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name in names and member.isfile() else None
            if content is not None:
                found[names[member.name]] = content.read()
    for name, file in wanted.files.items():
        if sha256_of(found.get(name, b"")) != file.sha256:
            raise PackageError(
                f"{archive}: {file.name} is missing or differs from the pinned one; please report this"
            )
    return found
