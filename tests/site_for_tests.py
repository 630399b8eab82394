"""A real web server on this machine for tests: it resumes, redirects, breaks off, and keeps what it was asked for."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


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


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Site]:
    """A site that is up within the `with`."""
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

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    state.root = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
