"""Addresses that may be requested, and the client for all requests over HTTP."""

import ipaddress
import socket
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


def is_internal(url: str) -> bool:
    """Whether an address points to this machine or into the local network, by the numbers of its host."""
    host = urlsplit(url).hostname or ""
    try:
        found = [host] if _is_number(host) else [str(i[4][0]) for i in socket.getaddrinfo(host, None)]
    except (OSError, UnicodeError):
        return False  # there is no such host, so nothing will be requested
    return any(not ipaddress.ip_address(number.partition("%")[0]).is_global for number in found)


def leads_inside(url: str, origin: str) -> bool:
    """Whether a server elsewhere redirects into the local network, where programs trust whoever asks.

    Args:
        url: the address that it redirects to.
        origin: the address that was asked for.
    """
    elsewhere = urlsplit(url).hostname != urlsplit(origin).hostname
    return elsewhere and is_internal(url) and not is_internal(origin)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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
