"""Fetch a package by its address: one zip, or an RDF with the files that it names. Opens and runs nothing.

Files of which the RDF gives the SHA-256 are verified by it; a zip, if its address ends in `#sha256=...`. All lie in the user's
cache afterwards, where a package is found again without its server.
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

from im2im_zoo.core.download import Policy, cache_folder, download
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.hashing import sha256_of

_ZOO = "bioimage.io/"
_SITE = re.compile(r"https://bioimage\.io/(?:#/)?(?:artifacts/|r/|.*[?&]id=)([\w-]+)/?$")
_RDF_BYTES = 16 * 1024**2
_FILES = 500
# Fields of formats 0.4 and 0.5 that name a file without a mapping of its own, or several.
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
    """Whether a source is an address rather than a path or the name of a packaged model."""
    return isinstance(source, str) and (source.startswith(_ZOO) or "://" in source)


def fetch_package(
    address: str, *, policy: Policy | None = None, cache: Path | None = None, collection: str | None = None
) -> Path:
    """The path of a package's zip, or of its RDF beside its files, in the cache.

    Args:
        address: `https://...` of a zip or an RDF, `bioimage.io/NAME` with the id or nickname of a model there, or the address
            of its page.
        policy, cache: see `download`.
        collection: address of a model's RDF with `{bioimageio_id}` in it (default: that of bioimageio.spec).

    Raises:
        PackageError: not https, too large, changed, not reachable, or neither a zip nor an RDF with its files.
    """
    rules = policy or Policy.from_environment()
    url = _rdf_url(address, collection)
    file = download(url, policy=rules, cache=cache)
    if zipfile.is_zipfile(file):
        return file
    if file.suffix.lower() not in (".yaml", ".yml"):
        raise PackageError(
            f"{address} is neither a zip nor an rdf.yaml: give the address of one, not that of a page about it"
        )
    return _assembled(url.partition("#")[0], file, rules, cache)


def _rdf_url(address: str, collection: str | None) -> str:
    name = address.removeprefix(_ZOO) if address.startswith(_ZOO) else None
    if page := _SITE.match(address):
        name = page[1]
    if name is None:
        return address
    if not re.fullmatch(r"[\w-]+", name):
        raise PackageError(f"{address}: after {_ZOO} comes an id or nickname, as in {_ZOO}affable-shark")
    from bioimageio.spec import settings

    return (collection or settings.collection_http_pattern).format(bioimageio_id=name)


def _assembled(url: str, rdf: Path, rules: Policy, cache: Path | None) -> Path:
    """The RDF in a folder with the files that it names, which are fetched from beside it."""
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
            for source, sha256 in _files_beside(url, content).items():
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
                if not folder.is_dir():  # which another process may have made meanwhile
                    raise PackageError(f"{folder} cannot be written: {error}") from error
    return folder / "rdf.yaml"


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # a file system without links
        shutil.copyfile(file, target)


def _files_beside(url: str, content: bytes) -> dict[str, str | None]:
    """The files that an RDF names by relative paths, with their SHA-256 where it gives them."""
    from bioimageio.spec.utils import read_yaml
    from ruyaml.error import YAMLError

    if len(content) > _RDF_BYTES:
        raise PackageError(f"{url} has more than {_RDF_BYTES} bytes: that is no RDF")
    try:
        raw = read_yaml(content.decode("utf-8"))
        named = list(_named(raw, set()))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise PackageError(f"{url} is no RDF: {' '.join(str(error).split())[:300]}") from error
    found: dict[str, str | None] = {}
    for source, sha256 in named:
        path = PurePosixPath(source)
        if "://" in source or not path.parts:
            continue
        if path.is_absolute() or ".." in path.parts or "\\" in source or ":" in source:
            raise PackageError(f"{url} names {source!r}, which leads out of its folder: refused")
        if source != "rdf.yaml":
            found[source] = sha256 or found.get(source)
    if len(found) > _FILES:
        raise PackageError(f"{url} names {len(found)} files, more than {_FILES}: refused")
    return found


def _named(value: Any, seen: set[int]) -> Iterator[tuple[str, str | None]]:
    """Every file of a document; what its aliases repeat is looked at once."""
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
                yield from _named(inner, seen)
    elif isinstance(value, list):
        for inner in value:
            yield from _named(inner, seen)
