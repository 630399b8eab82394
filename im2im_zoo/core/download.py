"""Download of files over https into the user's cache: resumable, verified, bounded in size, one process at a time.

An interrupted download resumes where it stopped if the server confirms that the file is unchanged (ETag or
Last-Modified). A file appears in the cache under its name only when it is complete and has the requested SHA-256.
"""

import os
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import platformdirs

from im2im_zoo.core.atomic import move_into_place, write_json
from im2im_zoo.core.errors import FULL, PackageError
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256 as file_sha256
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.core.http import http_client, is_fetchable, leads_inside
from im2im_zoo.core.sizes import parse_size

if TYPE_CHECKING:
    import httpx

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class DownloadPolicy:
    """Limits on downloads.

    Attributes:
        max_bytes: largest size of one file.
        local_http: whether http without TLS is allowed to this machine.
        timeout_s: seconds to wait for an answer or a further byte.
    """

    max_bytes: int = 8 * 10**9
    local_http: bool = False
    timeout_s: float = 30.0

    @classmethod
    def from_environment(cls) -> "DownloadPolicy":
        """Return the default, with `IM2IM_ZOO_MAX_DOWNLOAD` (e.g. `20GB`) as the largest size.

        Raises:
            PackageError: the variable is not a size.
        """
        text = os.environ.get("IM2IM_ZOO_MAX_DOWNLOAD", "")
        if not text:
            return cls()
        try:
            return cls(max_bytes=parse_size(text))
        except ValueError as error:
            raise PackageError(f"IM2IM_ZOO_MAX_DOWNLOAD: {error}") from error


def cache_folder() -> Path:
    """Return the folder that keeps downloads, in the user's cache."""
    return Path(platformdirs.user_cache_dir("im2im_zoo")) / "downloads"


def download(
    url: str,
    *,
    sha256: str | None = None,
    policy: DownloadPolicy | None = None,
    cache: Path | None = None,
    report: Callable[[int, int | None], None] | None = None,
) -> Path:
    """Download a file into the cache, unless it is there and unchanged.

    Args:
        url: an https address. A suffix `#sha256=...` is used as the hash.
        sha256: hash that the file must have. Without one, the server is asked whether the cached file is current; if it
            cannot be reached, the cached file is used.
        policy: limits (default: `DownloadPolicy.from_environment`).
        cache: folder (default: `cache_folder`).
        report: called with the bytes received and the total, if the server states it.

    Returns:
        The path of the file in the cache.

    Raises:
        PackageError: not https, larger than allowed, a different hash, refused by the server, or not reachable.
    """
    address, _, fragment = url.partition("#")
    if fragment.startswith("sha256="):
        sha256 = fragment.removeprefix("sha256=")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise PackageError(f"{address}: {sha256!r} is not a SHA-256: give its 64 hexadecimal digits")
    rules = policy or DownloadPolicy.from_environment()
    _check_address(address, rules, address)
    folder = (cache or cache_folder()) / sha256_of(address)[:32]
    with _lock_folder(folder):
        entry = _CacheEntry(address, folder, sha256 and sha256.lower(), rules, report)
        return entry.fetch()


def _check_address(url: str, rules: DownloadPolicy, origin: str) -> None:
    if not is_fetchable(url, local_http=rules.local_http):
        raise PackageError(
            f"{url} is not downloaded: only https protects a file from changes on the way; give an https address"
        )
    if leads_inside(url, origin):
        raise PackageError(
            f"{origin} is not downloaded: its server redirects to {url}, which is in the local network; give that address itself if "
            "you trust it"
        )


@contextmanager
def _lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of one address's folder; it ends with the process."""
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    except OSError as error:
        raise PackageError(
            f"the cache {folder} cannot be written: {error}; set XDG_CACHE_HOME to a folder that you can write to"
        ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _CacheEntry:
    """The cache entry of one address, which is locked."""

    url: str
    folder: Path
    sha256: str | None
    rules: DownloadPolicy
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
        """The file of the validators (ETag or Last-Modified) that the server gave for the partial and the complete file."""
        return self.folder / "notes.json"

    def fetch(self) -> Path:
        import httpx

        if self.sha256 is not None and self.file.is_file() and file_sha256(self.file) == self.sha256:
            return self.file
        problem: Exception | None = None
        for _ in range(_ATTEMPTS):
            try:
                with http_client(
                    self.rules.timeout_s, check=lambda url: _check_address(url, self.rules, self.url)
                ) as client:
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
            return self.file  # the server cannot be reached: as it was when it was downloaded
        have = self.partial.stat().st_size if self.partial.is_file() else 0
        if (problem_of_certificate := _find_certificate_problem(problem)) is not None:
            raise PackageError(
                f"{self.url} is not downloaded: its certificate is not trusted ({problem_of_certificate}); if your institution issues "
                "its own certificates, set SSL_CERT_FILE to the file of its authority"
            )
        raise PackageError(
            f"{self.url} could not be downloaded: {problem or 'no answer'}; "
            + (f"{have} bytes are kept: run the same command to resume" if have else "check the network")
        )

    def _get(self, client: "httpx.Client") -> Path:
        notes = read_json_object(self.notes)
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
            elsewhere = response.status_code == 206 and not _is_continuation(response, have)
            if have and (elsewhere or response.status_code == 416):
                self.partial.unlink()  # it is longer than the server's, or the server continues at another byte
                return self._get(client)
            if not response.is_success:
                raise PackageError(
                    f"{self.url} could not be downloaded: the server answers {response.status_code} {response.reason_phrase}; "
                    "check the address"
                )
            self._receive(response, have if _is_continuation(response, have) else 0)
        return self._finish(str(read_json_object(self.notes).get("partial") or ""))

    def _receive(self, response: "httpx.Response", have: int) -> None:
        """Append the body to the partial file, or replace it if `have` is 0."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise PackageError(
                f"{self.url} is sent with an encoding that was not requested and is refused; report this to its server"
            )
        length = response.headers.get("content-length", "")
        total = have + int(length) if length.isdigit() else None
        self._check_size(total or 0)
        etag = response.headers.get("etag", "")
        # A weak ETag (W/"...") does not promise the same bytes.
        same = etag if etag.startswith('"') else response.headers.get("last-modified", "")
        write_json(self.notes, {**read_json_object(self.notes), "partial": same})
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
                f"{self.url} has {size} bytes or more, above the limit of {self.rules.max_bytes}: to allow it, set "
                "IM2IM_ZOO_MAX_DOWNLOAD, e.g. to 20GB"
            )

    def _finish(self, same: str) -> Path:
        """Verify the received file and rename it to its final name."""
        actual = file_sha256(self.partial)
        if self.sha256 is not None and actual != self.sha256:
            self.partial.unlink()
            raise PackageError(
                f"{self.url}: the received file has the SHA-256 {actual}, not {self.sha256}: it was changed or damaged and is not "
                "kept; check the address and the hash"
            )
        self.file.parent.mkdir(exist_ok=True)
        move_into_place(self.partial, self.file)
        write_json(self.notes, {"file": same})
        return self.file


def _find_certificate_problem(error: BaseException | None) -> str | None:
    """Return the reason that a certificate was refused; None for any other problem."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__
    return None


def _is_continuation(response: "httpx.Response", have: int) -> bool:
    """Whether the body begins where the partial file ends."""
    return response.status_code == 206 and response.headers.get("content-range", "").startswith(
        f"bytes {have}-"
    )
