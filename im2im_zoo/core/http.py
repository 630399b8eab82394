"""Addresses that may be requested, and the client for all requests over HTTP."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import httpx

_LOCAL = ("localhost", "127.0.0.1", "::1")
# The body arrives as it is stored, so that its length and ranges are those of the file.
AS_STORED: Mapping[str, str] = MappingProxyType({"Accept-Encoding": "identity", "User-Agent": "im2im_zoo"})


def is_local(url: str) -> bool:
    """Whether an address points to this machine."""
    return urlsplit(url).hostname in _LOCAL


def is_fetchable(url: str, *, local_http: bool) -> bool:
    """Whether an address is https, or http to this machine where that is allowed."""
    parts = urlsplit(url)
    local = local_http and parts.scheme == "http" and is_local(url)
    return (parts.scheme == "https" or local) and bool(parts.hostname)


def http_client(
    timeout_s: float,
    *,
    check: Callable[[str], None] | None = None,
    headers: Mapping[str, str] = AS_STORED,
    max_redirects: int = 5,
) -> "httpx.Client":
    """Return a client that follows redirections.

    Args:
        timeout_s: seconds to wait for an answer or a further byte.
        check: called with each address before it is requested, also that of a redirection; raises to refuse it.
        headers: of every request, besides those of httpx.
        max_redirects: of one request.
    """
    import httpx

    hooks = [] if check is None else [lambda request: check(str(request.url))]
    return httpx.Client(
        follow_redirects=True,
        max_redirects=max_redirects,
        timeout=timeout_s,
        event_hooks={"request": hooks},
        headers=dict(headers),
    )
