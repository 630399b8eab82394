"""Online check of the links of an RDF, on request only.

A link is dead if its server answers 404 or 410. Links that cannot be reached, or that lead into the local network, where an RDF of a
stranger has nothing to ask for, are listed as unchecked.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from im2im_zoo.core.http import http_client, is_internal
from im2im_zoo.core.nested import walk_values
from im2im_zoo.packaging.validation.checks.base import Checks
from im2im_zoo.packaging.validation.findings import Finding

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 10.0
_GONE = (404, 410)
_MOST = 50


def check_links(checks: Checks, *, local: bool = False) -> None:
    """Request each link and DOI of the RDF, and add dead ones to the findings.

    Args:
        checks: of the package.
        local: whether links to this machine and into the local network are requested, too.
    """
    description = checks.package.description.model_dump(mode="json", exclude_none=True)
    links = {url: where for where, url in reversed(list(_links(description)))}
    dead, unreached, reached = list[Finding](), list[str](), 0
    check = None if local else _refuse_internal
    with http_client(_TIMEOUT_S, headers={}, max_redirects=8, check=check) as client:
        for url, where in list(links.items())[:_MOST]:
            status = _status(client, url)
            if status is None:
                unreached.append(f"{where} ({urlsplit(url).hostname})")
                continue
            reached += 1
            if status in _GONE:
                message = f"{url} is dead, its server answers {status}: correct or remove it"
                dead.append(Finding("warning", "link", where, message))
    checks.findings += dead
    if unreached:
        network = "" if reached else ": there seems to be no network"
        message = f"{len(unreached)} links were not reached{network}; check these by hand: {', '.join(unreached[:5])}"
        checks.add("info", "links_unchecked", "", message)
    if reached > len(dead):
        checks.note("links", f"{reached - len(dead)} of {len(links)} links work")


def _refuse_internal(url: str) -> None:
    if is_internal(url):
        raise ValueError(f"{url} is in the local network")


def _status(client: "httpx.Client", url: str) -> int | None:
    """Return the HTTP status of a link; None without an answer."""
    import httpx

    try:
        answer = client.head(url)
        if answer.status_code in (403, 405, 501, *_GONE):  # some servers refuse HEAD requests
            with client.stream("GET", url) as whole:
                return whole.status_code
        return answer.status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None


def _links(description: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for where, value in walk_values(description, without=("config",)):
        if isinstance(value, str) and where.rpartition(".")[2] == "doi":
            yield where, f"https://doi.org/{value}"
        elif isinstance(value, str) and value.startswith(("https://", "http://")):
            yield where, value
