"""Read-only zarr store of the web, which fetches only what is asked for and keeps nothing.

Transport is httpx, as of downloads: only https, also through redirections; see docs/decisions/0017.
"""

import asyncio
import functools
import os
import time
from collections.abc import AsyncIterator, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)

from im2im_zoo.core.errors import ImageError
from im2im_zoo.core.hashing import sha256_of
from im2im_zoo.core.http import http_client, is_fetchable, is_local, leads_inside
from im2im_zoo.images.address import Address
from im2im_zoo.images.formats.ome_zarr.checked_store import check_length, is_metadata

_PAUSES_S = (0.5, 2.0)
_TIMEOUT_S = 30.0
# Blosc can hold no more in a chunk, so a longer answer is no chunk.
_MOST_BYTES = 2**31
_MISSING = (404, 410)
_BUSY = (429, 500, 502, 503, 504)


class WebStore(Store):
    """Files of a zarr below its address; a chunk that the server does not have is empty, as zarr has it.

    Args:
        address: of the zarr.
        pauses_s: seconds to wait before each further attempt, where a server is busy or cannot be reached.
        most_bytes: the longest answer that is taken.

    Attributes:
        checks_blosc: whether its chunks are compressed by Blosc last, so that those cut short are found.
    """

    def __init__(
        self, address: Address, *, pauses_s: tuple[float, ...] = _PAUSES_S, most_bytes: int = _MOST_BYTES
    ) -> None:
        super().__init__(read_only=True)
        self.checks_blosc = False
        self._address = address
        self._pauses_s, self._most_bytes = pauses_s, most_bytes
        self._documents: dict[str, str] = {}

    @property
    def state(self) -> str:
        """Return the SHA-256 of the address and of the metadata that were read so far, with their versions as the server states them."""
        lines = [str(self._address), *(f"{key} {state}" for key, state in sorted(self._documents.items()))]
        return sha256_of("\n".join(lines))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WebStore) and other._address == self._address

    async def get(self, key: str, prototype: Any, byte_range: ByteRequest | None = None) -> Any:
        """Return the bytes of a file, or some of them; None if the file is missing.

        Raises:
            ImageError: the server cannot be reached, or refuses.
        """
        found = await asyncio.to_thread(self._fetch, key, byte_range)
        if found is None:
            return None
        content, version = found
        if is_metadata(key):
            self._documents[key] = f"{sha256_of(content)} {version}"
        value = prototype.buffer.from_bytes(content)
        if self.checks_blosc and byte_range is None and not is_metadata(key):
            check_length(value, f"{self._address}/{key}")
        return value

    async def get_partial_values(
        self, prototype: Any, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Any]:
        """Return the bytes of several files at once."""
        return await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges))

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(self._fetch, key, RangeByteRequest(0, 1)) is not None

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    async def set(self, key: str, value: Any) -> None:
        """Refuse."""
        raise self._refusal()

    async def delete(self, key: str) -> None:
        """Refuse."""
        raise self._refusal()

    def list(self) -> AsyncIterator[str]:
        """Refuse: a web server does not list its files."""
        raise self._refusal()

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Refuse."""
        raise self._refusal()

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Refuse."""
        raise self._refusal()

    def _fetch(self, key: str, wanted: ByteRequest | None) -> tuple[bytes, str] | None:
        return _fetch(f"{self._address}/{key}", wanted, self._pauses_s, self._most_bytes)

    def _refusal(self) -> ImageError:
        return ImageError(
            f"{self._address}: images on the web are read-only: download it, or write elsewhere"
        )


def _fetch(
    url: str, wanted: ByteRequest | None, pauses_s: tuple[float, ...], most_bytes: int
) -> tuple[bytes, str] | None:
    """The body, and what tells one version of the file from another; None if there is no such file."""
    problem = ""
    for pause in (0.0, *pauses_s):
        time.sleep(pause)
        try:
            client = _client(os.getpid(), is_local(url), _origin(url))
            with client.stream("GET", url, headers=_header(wanted)) as response:
                # Stores of objects that may not be listed refuse what they do not have.
                hidden = response.status_code == 403 and is_metadata(url)
                if response.status_code in _MISSING or hidden:
                    return None
                said = f"the server answers {response.status_code} {response.reason_phrase}"
                if response.is_success:
                    version = (
                        f"{response.headers.get('etag', '')} {response.headers.get('last-modified', '')}"
                    )
                    return _part(_body(response, url, most_bytes), wanted, response.status_code), version
                if response.status_code not in _BUSY:
                    raise ImageError(
                        f"{url}: cannot be read: {said}; check the address, and whether it is open to all"
                    )
                problem = said
        except httpx.TransportError as error:
            problem = f"{type(error).__name__}: {error}"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ImageError(f"{url}: cannot be read: {error}; check the address") from error
    raise ImageError(
        f"{url}: could not be fetched in {len(pauses_s) + 1} attempts: {problem}; check the network and the address"
    )


def _origin(url: str) -> str:
    """Return the address of a server, by the address of one of its files."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


@functools.cache
def _client(process: int, local: bool, origin: str) -> httpx.Client:
    """Return the HTTP client of a process: a forked one must not use its parent's connections.

    Args:
        process: its id.
        local: whether the server is this machine, where http is allowed.
        origin: address of the server.
    """

    def check(url: str) -> None:
        if not is_fetchable(url, local_http=local):
            raise ImageError(
                f"{url}: the server redirects to this address, which is not https and is not read"
            )
        if leads_inside(url, origin):
            raise ImageError(
                f"{url}: the server of {origin} redirects to this address in the local network, which is not read"
            )

    return http_client(_TIMEOUT_S, check=check)


def _body(response: httpx.Response, url: str, most_bytes: int) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        size += len(part)
        if size > most_bytes:
            raise ImageError(f"{url}: is larger than any chunk of an image ({most_bytes} bytes): refused")
        parts.append(part)
    return b"".join(parts)


def _header(wanted: ByteRequest | None) -> dict[str, str]:
    match wanted:
        case RangeByteRequest(start, end):
            return {"Range": f"bytes={start}-{end - 1}"}
        case OffsetByteRequest(offset):
            return {"Range": f"bytes={offset}-"}
        case SuffixByteRequest(suffix):
            return {"Range": f"bytes=-{suffix}"}
        case _:
            return {}


def _part(body: bytes, wanted: ByteRequest | None, status: int) -> bytes:
    """Return the wanted part of the body, also of a server that knows no ranges and sends all."""
    if status == httpx.codes.PARTIAL_CONTENT:
        return body
    match wanted:
        case RangeByteRequest(start, end):
            return body[start:end]
        case OffsetByteRequest(offset):
            return body[offset:]
        case SuffixByteRequest(suffix):
            return body[-suffix:]
        case _:
            return body
