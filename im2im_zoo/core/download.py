"""Download files over https into the user's cache: resumed, verified, bounded, and by one process at a time. Knows no packages.

An interrupted download goes on where it stopped, if the server says that the file is the same (its ETag, or when it was
changed). A file appears in the cache under its name only when it is complete and has the SHA-256 that was asked for.
"""

import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import platformdirs

from im2im_zoo.core.atomic import write_json
from im2im_zoo.core.errors import FULL, PackageError
from im2im_zoo.core.hashing import sha256, sha256_of

if TYPE_CHECKING:
    import httpx

_LOCAL = ("localhost", "127.0.0.1", "::1")
_ATTEMPTS = 3
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be downloaded.

    Attributes:
        max_bytes: of one file.
        local_http: whether http, without TLS, is allowed to this machine itself.
        timeout_s: without any answer, or any further byte.
    """

    max_bytes: int = 8 * 10**9
    local_http: bool = False
    timeout_s: float = 30.0

    @classmethod
    def from_environment(cls) -> "Policy":
        """The default, with `IM2IM_ZOO_MAX_DOWNLOAD` (`20GB`) as the largest size.

        Raises:
            PackageError: that is no size.
        """
        text = os.environ.get("IM2IM_ZOO_MAX_DOWNLOAD", "")
        if not text:
            return cls()
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?B?)\s*", text.upper())
        unit = found and (found[2] if found[2] in _UNITS else f"{found[2]}B")
        if not found or unit not in _UNITS:
            raise PackageError(f"IM2IM_ZOO_MAX_DOWNLOAD is {text!r}: give a size such as 20GB")
        return cls(max_bytes=int(float(found[1]) * _UNITS[unit]))


def cache_folder() -> Path:
    """Where downloads are kept: below the user's cache."""
    return Path(platformdirs.user_cache_dir("im2im_zoo")) / "downloads"


def download(
    url: str,
    *,
    sha256: str | None = None,
    policy: Policy | None = None,
    cache: Path | None = None,
    report: Callable[[int, int | None], None] | None = None,
) -> Path:
    """The path of a file in the cache, downloaded if it is not there, or has changed.

    Args:
        url: https. What comes after `#sha256=` is taken as the hash.
        sha256: that the file must have. Without one, the server is asked whether the cached file is still its own; if it
            cannot be reached, the cached file is taken.
        policy: (default: `Policy.from_environment`).
        cache: folder (default: `cache_folder`).
        report: called with the bytes that are there and all that there will be, if the server says.

    Raises:
        PackageError: not https, larger than allowed, another hash, refused by the server, or not reachable.
    """
    address, _, fragment = url.partition("#")
    if fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise PackageError(f"{address}: {sha256!r} is no SHA-256: give its 64 hexadecimal digits")
    rules = policy or Policy.from_environment()
    _check_address(address, rules)
    folder = (cache or cache_folder()) / sha256_of(address)[:32]
    with _locked(folder):
        entry = _Entry(address, folder, sha256 and sha256.lower(), rules, report)
        return entry.fetched()


def is_local(url: str) -> bool:
    """Whether an address is of this machine itself."""
    return urlsplit(url).hostname in _LOCAL


def may_be_fetched(url: str, *, local_http: bool) -> bool:
    """Whether an address is https, or http of this machine itself where that is allowed."""
    parts = urlsplit(url)
    local = local_http and parts.scheme == "http" and is_local(url)
    return (parts.scheme == "https" or local) and bool(parts.hostname)


def _check_address(url: str, rules: Policy) -> None:
    if not may_be_fetched(url, local_http=rules.local_http):
        raise PackageError(
            f"{url} is not fetched: only https is, since anybody on the way can change the rest"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time for one address; the lock ends with the process."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        raise PackageError(
            f"the cache {folder} cannot be written: {error}; set XDG_CACHE_HOME to a folder of yours"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Entry:
    """One address in the cache, which is locked."""

    url: str
    folder: Path
    sha256: str | None
    rules: Policy
    report: Callable[[int, int | None], None] | None

    @property
    def file(self) -> Path:
        name = re.sub(r"[^\w.+-]", "_", unquote(urlsplit(self.url).path).rsplit("/", 1)[-1])
        return self.folder / "file" / (name.strip(".")[-100:] or "download")

    @property
    def partial(self) -> Path:
        return self.folder / "partial"

    @property
    def notes(self) -> Path:
        """What the server said of the partial file, and of the file: by which it can be told that it is the same."""
        return self.folder / "notes.json"

    def fetched(self) -> Path:
        import httpx

        if self.sha256 is not None and self.file.is_file() and sha256(self.file) == self.sha256:
            return self.file
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                with self._client() as client:
                    return self._get(client)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = error
                if not isinstance(
                    error, httpx.RemoteProtocolError | httpx.ReadError | httpx.TimeoutException
                ):
                    break
            except OSError as error:
                if error.errno not in FULL:
                    raise PackageError(f"{self.url} cannot be written into {self.folder}: {error}") from error
                raise PackageError(f"no space is left in {self.folder} for {self.url}: free some") from error
        if self.file.is_file() and self.sha256 is None:
            return self.file  # as it was when it was fetched
        have = self.partial.stat().st_size if self.partial.is_file() else 0
        if (distrust := _distrust(problem)) is not None:
            raise PackageError(
                f"{self.url} is not fetched: its certificate is not trusted ({distrust}), so it may be of anybody; if its "
                "authority is your institution's own, name the file of that in SSL_CERT_FILE"
            )
        raise PackageError(
            f"{self.url} could not be fetched: {problem or 'no answer'}; "
            + (
                f"the same command goes on after the {have} bytes that are there"
                if have
                else "check the network"
            )
        )

    def _client(self) -> "httpx.Client":
        import httpx

        def check(request: "httpx.Request") -> None:
            # Called for each redirection, too.
            _check_address(str(request.url), self.rules)

        return httpx.Client(
            follow_redirects=True,
            max_redirects=5,
            timeout=self.rules.timeout_s,
            event_hooks={"request": [check]},
            headers={"Accept-Encoding": "identity", "User-Agent": "im2im_zoo"},
        )

    def _get(self, client: "httpx.Client") -> Path:
        notes = self._read_notes()
        have = self.partial.stat().st_size if self.partial.is_file() and notes.get("partial") else 0
        headers = {}
        if have:
            headers = {"Range": f"bytes={have}-", "If-Range": str(notes["partial"])}
        elif self.file.is_file() and self.sha256 is None and notes.get("file"):
            header = "If-None-Match" if str(notes["file"]).startswith('"') else "If-Modified-Since"
            headers = {header: str(notes["file"])}
        with client.stream("GET", self.url, headers=headers) as response:
            if response.status_code == 304:
                return self.file
            elsewhere = response.status_code == 206 and not _continues(response, have)
            if have and (elsewhere or response.status_code == 416):
                self.partial.unlink()  # it is longer than the server's, or the server goes on somewhere else
                return self._get(client)
            if not response.is_success:
                raise PackageError(
                    f"{self.url} could not be fetched: the server says {response.status_code} {response.reason_phrase}; "
                    "check the address"
                )
            self._receive(response, have if _continues(response, have) else 0)
        return self._finished(str(self._read_notes().get("partial") or ""))

    def _receive(self, response: "httpx.Response", have: int) -> None:
        """Append the body to what is there, or begin anew."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PackageError(f"{self.url} comes encoded though that was not asked for: refused")
        length = response.headers.get("content-length", "")
        total = have + int(length) if length.isdigit() else None
        self._check_size(total or 0)
        etag = response.headers.get("etag", "")
        same = (
            etag if etag.startswith('"') else response.headers.get("last-modified", "")
        )  # weak ones do not do
        write_json(self.notes, {**self._read_notes(), "partial": same})
        with self.partial.open("ab" if have else "wb") as writer:
            for chunk in response.iter_raw():
                have += len(chunk)
                self._check_size(have)
                writer.write(chunk)
                if self.report is not None:
                    self.report(have, total)

    def _check_size(self, size: int) -> None:
        if size > self.rules.max_bytes:
            self.partial.unlink(missing_ok=True)
            raise PackageError(
                f"{self.url} has {size} bytes or more, above the limit of {self.rules.max_bytes}: set "
                "IM2IM_ZOO_MAX_DOWNLOAD, e.g. to 20GB, if that is right"
            )

    def _finished(self, same: str) -> Path:
        """Verify what was received, and give it its name."""
        actual = sha256(self.partial)
        if self.sha256 is not None and actual != self.sha256:
            self.partial.unlink()
            raise PackageError(
                f"{self.url}: the SHA-256 of what was received is {actual}, not {self.sha256}: it was changed or damaged, "
                "and is not kept"
            )
        self.file.parent.mkdir(exist_ok=True)
        self.partial.replace(self.file)
        write_json(self.notes, {"file": same})
        return self.file

    def _read_notes(self) -> Mapping[str, Any]:
        try:
            found = json.loads(self.notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _distrust(error: BaseException | None) -> str | None:
    """Why a certificate was refused; None if the problem is another one."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return None


def _continues(response: "httpx.Response", have: int) -> bool:
    """Whether the body begins where the partial file ends."""
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(
        f"bytes {have}-"
    )
