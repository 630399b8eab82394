"""A real web server on this machine for tests: it resumes, redirects, breaks off, and keeps what it was asked for.

With a certificate, it speaks TLS.
"""

import http.server
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from loopback import running


@dataclass
class Site:
    """A real server on this machine: what it serves, how it misbehaves, and what it was asked for."""

    root: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    busy: int = 0
    etag: str = '"one"'
    says_length: bool = True
    encoding: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    def at(self, path: str) -> str:
        """The address of a file."""
        return self.root + path


@dataclass(frozen=True)
class Authority:
    """An authority for certificates of one's own, and one that it has given this machine."""

    certificate: Path
    served: Path
    key: Path


def make_authority(folder: Path) -> Authority:
    """An authority made by openssl."""
    made = Authority(folder / "authority.pem", folder / "server.pem", folder / "server.key")
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1\nauthorityKeyIdentifier=keyid\n", encoding="utf-8")
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    signing = ["-addext", "keyUsage=critical,keyCertSign", "-subj", "/CN=tests", "-days", "2"]
    signed = ["-CA", made.certificate, "-CAkey", folder / "authority.key", "-CAcreateserial", "-days", "2"]
    for command in (
        [*new, "-x509", *signing, "-keyout", folder / "authority.key", "-out", made.certificate],
        [*new, "-subj", "/CN=127.0.0.1", "-keyout", made.key, "-out", folder / "request"],
        ["x509", "-req", "-in", folder / "request", *signed, "-extfile", extensions, "-out", made.served],
    ):
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    return made


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Who does not trust the certificate hangs up."""


@contextmanager
def serving(files: dict[str, bytes], authority: Authority | None = None) -> Iterator[Site]:
    """A site that is up within the `with`, with TLS if there is an authority."""
    state = Site(files=dict(files))

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, **headers: str) -> None:
            state.answered.append(status)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()

        def do_HEAD(self) -> None:
            state.asked.append((self.path, "HEAD"))
            self.answer(200 if self.path in state.files else 404, Content_Length="0")

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Range", "")))
            if self.path in state.redirects:
                self.answer(302, Location=state.redirects[self.path], Content_Length="0")
                return
            if state.busy:
                state.busy -= 1
                self.answer(503, Content_Length="0")
                return
            content = state.files.get(self.path)
            if content is None:
                self.answer(404, Content_Length="0")
                return
            if self.headers.get("If-None-Match") == state.etag:
                self.answer(304)
                return
            start, stop = 0, len(content)
            wanted = self.headers.get("Range")
            if wanted and self.headers.get("If-Range", state.etag) == state.etag:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start = int(first) if first else len(content) - int(last)
                stop = int(last) + 1 if first and last else len(content)
            part = (start, stop) != (0, len(content))
            headers = {"ETag": state.etag}
            if state.says_length:
                headers["Content_Length"] = str(stop - start)
            if state.encoding:
                headers["Content_Encoding"] = state.encoding
            if part:
                headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            self.answer(206 if part else 200, **headers)
            body = content[start:stop]
            if state.cut_after is not None:
                body, state.cut_after = body[: state.cut_after], None
                self.close_connection = True
            self.wfile.write(body)

    server = _Server(("127.0.0.1", 0), Handler)
    if authority is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.served, authority.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    state.root = f"{'https' if authority else 'http'}://127.0.0.1:{server.server_port}"
    with running(server):
        yield state
