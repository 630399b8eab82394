"""The page `try.html` in the folder of a package (docs/browser.md), which is not part of the package.

It is neither in the RDF nor in a zip or an upload. It states metadata of the package, which `refresh_page` brings up to date.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.finite_json import finite
from im2im_zoo.package import Package, open_package

TRY_PAGE = "try.html"
_FACTS = re.compile(rb'(<script type="application/json" id="facts">)(.*?)(</script>)', re.DOTALL)


def is_try_page(folder: Path, file: Path) -> bool:
    """Return whether a file in the folder of a package is its page."""
    return file.parent == folder and file.name == TRY_PAGE


def page_metadata(package: Package, name: str) -> dict[str, Any]:
    """Return the metadata that the page of a package states, as JSON values.

    Args:
        package: an open package.
        name: how a user names it in a command.
    """
    described = package.description
    return {
        "name": package.name,
        "version": package.version,
        "description": str(described.description or ""),
        "authors": [str(author.name) for author in described.authors],
        "citations": [_citation(entry) for entry in described.cite],
        "license": None if described.license is None else str(described.license),
        "command": f"im2im-zoo predict {name} IMAGE RESULT",
    }


def json_for_html(content: Mapping[str, Any]) -> str:
    """Return JSON that cannot end the element it is in."""
    text = json.dumps(finite(content), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def refresh_page(folder: Path, name: str) -> bytes | None:
    """Return the page in the folder of a package with the metadata that the package has now; None if it has no page.

    Args:
        folder: of the package.
        name: how a user names the package in a command.

    Raises:
        OSError: the page cannot be read.
    """
    path = folder / TRY_PAGE
    if not path.is_file():
        return None
    page = path.read_bytes()
    found = _FACTS.search(page)
    try:
        facts = json.loads(found[2]) if found is not None else None
        with open_package(folder, must_run=False) as package:
            metadata = page_metadata(package, name)
    except (ValueError, PackageError):
        return None
    if found is None or not isinstance(facts, dict):
        return None
    return page[: found.start(2)] + json_for_html(facts | metadata).encode() + page[found.end(2) :]


def _citation(entry: Any) -> dict[str, str | None]:
    url = f"https://doi.org/{entry.doi}" if entry.doi else entry.url
    return {"text": str(entry.text), "url": None if url is None else str(url)}
