"""Download of a package by its address: one zip, or an RDF with the files that it names.

Files are verified by the SHA-256 in the RDF, a zip by that in its address (`#sha256=...`). All are kept in the user's
cache, where a package is found again without its server.
"""

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from im2im_zoo.core.download import DownloadPolicy, cache_folder, download
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256_of

_ZOO = "bioimage.io/"
_SITE = re.compile(r"https://bioimage\.io/(?:#/)?(?:artifacts/|r/|.*[?&]id=)([\w-]+)/?$")
_RDF_BYTES = 16 * 1024**2
_FILES = 500
# Fields of formats 0.4 and 0.5 that name one or several files directly, without a mapping.
_PLAIN = (
    "documentation",
    "covers",
    "test_inputs",
    "test_outputs",
    "sample_inputs",
    "sample_outputs",
    "files",
)


def is_address(source: str | Path) -> bool:
    """Whether a source is an address, not a path or the name of a packaged model."""
    return isinstance(source, str) and (source.startswith(_ZOO) or "://" in source)


def fetch_package(
    address: str,
    *,
    policy: DownloadPolicy | None = None,
    cache: Path | None = None,
    collection: str | None = None,
) -> Path:
    """Download a package into the cache.

    Args:
        address: `https://...` of a zip or an RDF, `bioimage.io/NAME` with the id or nickname of a model there, or the address
            of its page.
        policy, cache: see `download`.
        collection: address of a model's RDF with `{bioimageio_id}` in it (default: that of bioimageio.spec).

    Returns:
        The path of the package's zip, or of its RDF beside its files.

    Raises:
        PackageError: not https, too large, changed, not reachable, or neither a zip nor an RDF with its files.
    """
    rules = policy or DownloadPolicy.from_environment()
    url = _resolve_url(address, collection)
    file = download(url, policy=rules, cache=cache)
    if zipfile.is_zipfile(file):
        return file
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise PackageError(
            f"{address} is neither a zip nor an rdf.yaml: give the address of one, not of a page about it"
        )
    return _assemble(url.partition("#")[0], file, rules, cache)


def _resolve_url(address: str, collection: str | None) -> str:
    name = address.removeprefix(_ZOO) if address.startswith(_ZOO) else None
    if page := _SITE.match(address):
        name = page[1]
    if name is None:
        return address
    if not re.fullmatch(r"[\w-]+", name):
        raise PackageError(
            f"{address} has no valid id or nickname after {_ZOO}: give one, as in {_ZOO}affable-shark"
        )
    from bioimageio.spec import settings

    return (collection or settings.collection_http_pattern).format(bioimageio_id=name)


def _assemble(url: str, rdf: Path, rules: DownloadPolicy, cache: Path | None) -> Path:
    """Put the RDF into a folder with the files that it names, which are downloaded from beside it."""
    content = rdf.read_bytes()
    name = sha256_of(url.encode() + b"\0" + content)[:32]
    folder = (cache or cache_folder()) / "packages" / name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        base, left = url.rpartition("/")[0], rules.max_bytes
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            built = Path(temporary) / "package"
            built.mkdir()
            (built / "rdf.yaml").write_bytes(content)
            for source, sha256 in _list_files_beside(url, content).items():
                found = download(
                    f"{base}/{quote(source)}",
                    sha256=sha256,
                    policy=replace(rules, max_bytes=left),
                    cache=cache,
                )
                left -= found.stat().st_size
                target = built / source
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(found, target)
            try:
                built.rename(folder)
            except OSError as error:
                if not folder.is_dir():  # another process may have made it meanwhile
                    raise PackageError(
                        f"{folder} cannot be written: {error}; set XDG_CACHE_HOME to a folder that you can write to"
                    ) from error
    return folder / "rdf.yaml"


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        shutil.copyfile(file, target)


def _list_files_beside(url: str, content: bytes) -> dict[str, str | None]:
    """List the files that an RDF names by relative paths, with their SHA-256 where it has them."""
    from bioimageio.spec.utils import read_yaml
    from ruyaml.error import YAMLError

    if len(content) > _RDF_BYTES:
        raise PackageError(f"{url} has more than {_RDF_BYTES} bytes, so it is not an RDF; check the address")
    try:
        raw = read_yaml(content.decode("utf-8"))
        named = list(_walk_named_files(raw, set()))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise PackageError(
            f"{url} is not an RDF: {' '.join(str(error).split())[:300]}; check the address"
        ) from error
    found: dict[str, str | None] = {}
    for source, sha256 in named:
        path = PurePosixPath(source)
        if "://" in source or not path.parts:
            continue
        if path.is_absolute() or ".." in path.parts or "\\" in source or ":" in source:
            raise PackageError(
                f"{url} names {source!r}, which leads out of its folder, so nothing is downloaded; report this to its authors"
            )
        if source != "rdf.yaml":
            found[source] = sha256 or found.get(source)
    if len(found) > _FILES:
        raise PackageError(
            f"{url} names {len(found)} files, more than the limit of {_FILES}; report this to its authors"
        )
    return found


def _walk_named_files(value: Any, seen: set[int]) -> Iterator[tuple[str, str | None]]:
    """Yield every file that a document names, with its SHA-256; parts repeated by aliases are visited once."""
    if id(value) in seen:
        return
    if isinstance(value, dict | list):
        seen.add(id(value))
    if isinstance(value, Mapping):
        source, sha256 = value.get("source"), value.get("sha256")
        if isinstance(source, str):
            yield source, sha256 if isinstance(sha256, str) else None
        architecture = value.get("architecture")
        if isinstance(architecture, str) and ".py:" in architecture:  # format 0.4
            yield architecture.rpartition(":")[0], None
        for key, inner in value.items():
            if key in _PLAIN:
                for text in inner if isinstance(inner, list) else [inner]:
                    if isinstance(text, str):
                        yield text, None
            if key != "config":  # which may hold anything
                yield from _walk_named_files(inner, seen)
    elif isinstance(value, list):
        for inner in value:
            yield from _walk_named_files(inner, seen)
