"""A stand-in for bioimage.io's artifact manager and its object store, on this machine: drafts, signed addresses, failures."""

import hashlib
import http.server
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from loopback import running

TOKEN = "a-token-for-tests"


@dataclass
class Draft:
    """A draft: its manifest, and the bytes of its files."""

    manifest: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class ArtifactServer:
    """A server's state, and how it misbehaves.

    Attributes:
        address: of `create`.
        fail: statuses to answer a step with, one a request: `create`, `put_file`, `edit`, or `PUT NAME`; 0 closes the connection.
        details: of the answers of failed steps.
    """

    address: str = ""
    drafts: dict[str, Draft] = field(default_factory=dict)
    fail: dict[str, list[int]] = field(default_factory=dict)
    details: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tokens_at_store: list[str] = field(default_factory=list)


def _signature(draft: str, name: str) -> str:
    return hashlib.sha256(f"{draft}/{name}".encode()).hexdigest()[:16]


@contextmanager
def artifact_server() -> Iterator[ArtifactServer]:
    """A server that is up within the `with`; the store is at `localhost`, the manager at `127.0.0.1`."""
    state = ArtifactServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: object = None) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def misbehaves(self, step: str) -> bool:
            if not state.fail.get(step):
                return False
            status = state.fail[step].pop(0)
            if status == 0:
                self.close_connection = True
                self.connection.close()
            else:
                self.answer(status, {"success": False, "detail": state.details.get(step, "")})
            return True

        def do_POST(self) -> None:
            step = self.path.rpartition("/")[2]
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(step)
            if self.misbehaves(step):
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                self.answer(401, {"success": False, "detail": "Invalid token"})
                return
            if step == "create":
                expected = {"parent_id": "bioimage-io/bioimage.io", "type": "model", "version": "stage"}
                if {key: asked.get(key) for key in expected} != expected:
                    self.answer(400, {"success": False, "detail": f"unexpected {asked}"})
                    return
                number = len(state.drafts) + 1
                state.drafts[f"bioimage-io/quick-ant-{number}"] = Draft(asked["manifest"])
                self.answer(200, {"id": f"bioimage-io/quick-ant-{number}", "alias": f"quick-ant-{number}"})
            elif asked["artifact_id"] not in state.drafts:
                self.answer(404, {"success": False, "detail": "KeyError: no such artifact"})
            elif step == "put_file":
                draft, name = asked["artifact_id"], asked["file_path"]
                query = urllib.parse.urlencode({"key": f"{draft}|{name}", "sign": _signature(draft, name)})
                port = self.server.server_address[1]
                self.answer(200, f"http://localhost:{port}/store?{query}")
            else:
                state.drafts[asked["artifact_id"]].manifest = asked["manifest"]
                self.answer(200, {"id": asked["artifact_id"]})

        def do_PUT(self) -> None:
            """Take a body as an object store does: of known length, without a type, as it is."""
            query = dict(urllib.parse.parse_qsl(self.path.partition("?")[2]))
            draft, _, name = query["key"].partition("|")
            state.asked.append(f"PUT {name}")
            state.tokens_at_store += [v for k, v in self.headers.items() if k.lower() == "authorization"]
            if self.headers.get("Transfer-Encoding") or self.headers.get("Content-Type"):
                state.problems.append(f"{name}: {dict(self.headers)}")
                self.answer(403)
                return
            if state.fail.get(f"PUT {name}") == [0]:
                self.rfile.read(100)  # a part of it, and then nothing more
            else:
                body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.misbehaves(f"PUT {name}"):
                return
            if query["sign"] != _signature(draft, name):
                self.answer(403)
                return
            state.drafts[draft].files[name] = body
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A connection that was closed on purpose."""

    server = Server(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}/public/services/artifact-manager/create"
    with running(server):
        yield state
