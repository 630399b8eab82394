"""Write the page of a package: the built application (`make web`), with the facts and parts of the package inside or beside it.

Parts are compressed by gzip; inside the page they are written in base64, in pieces that every browser reads as text. The page's
content security policy names its own script by hash. Before an image is read, the page adds a policy without connections, or only to
the server that the image comes from, so nothing that is in it can send the image elsewhere.
"""

import base64
import gzip
import hashlib
import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from im2im_zoo.core.atomic import atomic_file
from im2im_zoo.core.errors import Im2ImError, PackageError
from im2im_zoo.package import Package, open_package
from im2im_zoo.packaging.try_page import TRY_PAGE, json_for_html
from im2im_zoo.workflows.browser.facts import (
    MAX_PAGE_BYTES,
    MAX_SERVED_BYTES,
    PageContent,
    page_content,
)
from im2im_zoo.workflows.browser.onnxruntime import read_onnxruntime

_APPLICATION = Path(__file__).resolve().parents[2] / "web" / "app.html"
_HEAD, _PARTS = "<!--im2im-zoo:head-->", "<!--im2im-zoo:parts-->"
# Bytes of one piece; a multiple of 3, so that the pieces of base64 need no padding.
_PIECE = 12 * 1024**2
_LEVEL = 6
# Seconds to wait for a server that does not answer, where a page is wanted by default only.
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class PageParts:
    """A page and its parts.

    Attributes:
        facts: JSON values of the package, without the list of parts.
        parts: compressed, by name.
        sizes: bytes of the parts before they were compressed.
    """

    facts: Mapping[str, Any]
    parts: Mapping[str, bytes]
    sizes: Mapping[str, int]


def find_application() -> str:
    """Return the application that `make web` builds.

    Raises:
        PackageError: it has not been built.
    """
    try:
        return _APPLICATION.read_text(encoding="utf-8")
    except OSError as error:
        raise PackageError(
            f"the page is not built: {_APPLICATION} is missing; run `make web` in the checkout (it needs Node.js 20 or newer), or "
            "install a released wheel"
        ) from error


def collect_parts(
    package: Package,
    *,
    onnxruntime: Path | None = None,
    served: bool = False,
    report: Callable[[int, int | None], None] | None = None,
) -> PageParts:
    """Return the facts and parts of the page of a package.

    Args:
        package: the model.
        onnxruntime: folder with the files of onnxruntime-web (default: see `read_onnxruntime`).
        served: whether the parts are served beside the page, which allows larger weights.
        report: called with the bytes received and the total, while onnxruntime-web is downloaded.

    Raises:
        PackageError: a page cannot run the package, or onnxruntime-web is not available.
    """
    content = page_content(package, max_bytes=MAX_SERVED_BYTES if served else MAX_PAGE_BYTES)
    return _pack(content, read_onnxruntime(onnxruntime, report=report))


def _pack(content: PageContent, runtime: Mapping[str, bytes]) -> PageParts:
    raw = {**content.parts, **runtime}
    packed = {name: gzip.compress(part, _LEVEL, mtime=0) for name, part in raw.items()}
    facts = {**content.facts, "version_of_page": metadata.version("im2im_zoo")}
    return PageParts(facts, packed, {name: len(part) for name, part in raw.items()})


def write_page(
    package: Package,
    path: Path,
    *,
    onnxruntime: Path | None = None,
    report: Callable[[int, int | None], None] | None = None,
) -> int:
    """Write one self-contained page that runs a package in the browser; return its bytes.

    Args:
        package: the model.
        path: of the page; it appears when it is complete, in place of what is there.
        onnxruntime, report: see `collect_parts`.

    Raises:
        PackageError: the application is not built, a page cannot run the package, or the page cannot be written.
    """
    application = find_application()
    return _write(application, collect_parts(package, onnxruntime=onnxruntime, report=report), path)


def add_page(
    folder: Path, output: Path, *, report: Callable[[int, int | None], None] | None = None
) -> str | None:
    """Write the page of a package into its folder, if it can be had without much waiting; else return why there is none.

    Args:
        folder: of the package; it may be moved to `output` afterwards.
        output: what users call the folder.
        report: called with the bytes received and the total, while onnxruntime-web is downloaded.

    Returns:
        None, or what is wrong and what to do.
    """
    command = f"im2im-zoo try {output} -o {output / TRY_PAGE}"
    try:
        application = find_application()
    except PackageError as error:
        return f"{error}, then {command}"
    try:
        with open_package(folder) as package:
            content = page_content(package, max_bytes=MAX_PAGE_BYTES, name=output.name)
    except Im2ImError as error:
        return str(error).replace(str(folder), str(output))
    try:
        runtime = read_onnxruntime(report=report, timeout_s=_PATIENCE_S)
        _write(application, _pack(content, runtime), folder / TRY_PAGE)
    except PackageError as error:
        return f"{error}; to write it later: {command}"
    return None


def _write(application: str, parts: PageParts, path: Path) -> int:
    before, after = fill_application(application, parts, embedded=True)
    try:
        with atomic_file(path) as file:
            file.write(before.encode())
            for name, part in parts.parts.items():
                for element in _elements(name, part):
                    file.write(element)
            file.write(after.encode())
    except OSError as error:
        raise PackageError(f"{path} cannot be written: {error}") from error
    return path.stat().st_size


def fill_application(application: str, parts: PageParts, *, embedded: bool) -> tuple[str, str]:
    """Return the page before and after the place of its parts.

    Args:
        application: the built page.
        parts: of the package.
        embedded: whether the parts are in the page; else it loads them from its own server.

    Raises:
        PackageError: the application is not one that this version fills.
    """
    if application.count(_HEAD) != 1 or application.count(_PARTS) != 1:
        raise PackageError(f"{_APPLICATION} has no place for a package; run `make web` again")
    listed = {
        name: {"bytes": parts.sizes[name], "chunks": -(-len(part) // _PIECE) if embedded else 0}
        for name, part in parts.parts.items()
    }
    head = (
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(_policy(application))}">\n'
        f'    <script type="application/json" id="facts">{json_for_html({**parts.facts, "parts": listed})}</script>'
    )
    before, _, after = application.replace(_HEAD, head).partition(_PARTS)
    return before, after


def _policy(application: str) -> str:
    """Return the content security policy: only the scripts and styles that are in the page.

    Connections are for images by address. The page forbids them itself before it reads an image (`web/src/connections.ts`).
    """
    scripts = re.findall(r'<script type="module">(.*?)</script>', application, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", application, re.DOTALL)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))} 'wasm-unsafe-eval' blob:",
            f"style-src {' '.join(map(_hash, styles))}",
            "worker-src blob:",
            "img-src blob: data:",
            "connect-src http: https:",
            "form-action 'none'",
            "base-uri 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _elements(name: str, part: bytes) -> Iterator[bytes]:
    for i, start in enumerate(range(0, len(part), _PIECE)):
        yield f'<script type="text/plain" id="part-{name}-{i}">'.encode()
        yield base64.b64encode(part[start : start + _PIECE])
        yield b"</script>\n"
