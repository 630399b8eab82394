"""Serve the page of a package to this machine only, with its parts as separate files.

The headers isolate the page from other origins, which browsers require for threads of WebAssembly.
"""

from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import ClassVar

from im2im_zoo.core.errors import PackageError
from im2im_zoo.workflows.browser.page import PageParts, fill_application, find_application

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
)


def create_server(parts: PageParts, port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page of a package, which listens on the loopback interface; `serve_forever` runs it.

    Args:
        parts: of the package (`collect_parts`).
        port: to listen on; 0 for a free one.

    Raises:
        PackageError: the application is not built, or the port is not free.
    """
    page = "".join(fill_application(find_application(), parts, embedded=False)).encode()
    files = {"/": (page, "text/html; charset=utf-8")}
    files |= {f"/parts/{name}.gz": (part, "application/gzip") for name, part in parts.parts.items()}

    class Handler(_PageHandler):
        contents = files

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        raise PackageError(
            f"port {port} cannot be used: {error}; choose another with --port, or 0 for a free one"
        ) from error


class _PageHandler(BaseHTTPRequestHandler):
    contents: ClassVar[Mapping[str, tuple[bytes, str]]] = {}

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # A page elsewhere may have a name that points to this machine: only this machine's own names are answered.
        if self.headers.get("Host", "").rpartition(":")[0] not in _NAMES:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        found = self.contents.get(self.path.partition("?")[0])
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content, kind = found
        self.send_response(HTTPStatus.OK)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
