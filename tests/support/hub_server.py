"""A stand-in for the Hugging Face Hub, on this machine: repositories, references, commits of small files, tags."""

import base64
import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from loopback import running

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """A server's state: the files of its repository, and the steps to refuse, with their statuses."""

    address: str = ""
    token: str = "hf_test"
    files: dict[str, bytes] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    pull_requests: int = 0
    fail: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


def _pull_request(repository: str) -> dict[str, Any]:
    return {
        "title": "Upload", "num": 1, "author": {"name": "ada"}, "createdAt": "2026-01-02T03:04:05.000Z", "status": "draft",
        "repo": {"name": repository, "type": "model"}, "isPullRequest": True, "events": [], "filesWithConflicts": [],
        "changes": {"base": "refs/heads/main"},
    }  # fmt: skip


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """A server that is up within the `with`."""
    state = HubServer()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def refuses(self, step: str) -> bool:
            state.asked.append(step)
            if state.fail.get(step):
                self.answer(state.fail[step].pop(0), {"error": "refused for the test"})
                return True
            if self.headers.get("Authorization") != f"Bearer {state.token}":
                self.answer(401, {"error": "Invalid credentials"})
                return True
            return False

        def do_GET(self) -> None:
            parts = urlsplit(self.path).path.strip("/").split("/")
            step = parts[4] if len(parts) > 4 else "info"
            if self.refuses(step):
                return
            if step == "refs":
                branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": _COMMIT}
                self.answer(200, {"branches": [branch], "converts": [], "tags": [], "pullRequests": []})
            elif step == "tree":
                listed = [
                    {"type": "file", "path": p, "size": len(c), "oid": "0" * 40}
                    for p, c in state.files.items()
                ]
                self.answer(200, listed)
            elif step == "discussions":
                self.answer(200, _pull_request("/".join(parts[2:4])))
            else:
                self.answer(200, {"id": "/".join(parts[2:4]), "sha": _COMMIT, "siblings": []})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path).path.strip("/").split("/")
            step = parts[4] if len(parts) > 4 else parts[-1]
            if self.refuses(step):
                return
            if step == "create":
                asked = json.loads(body)
                owner = asked.get("organization") or "ada"
                self.answer(200, {"url": f"{state.address}/{owner}/{asked['name']}"})
            elif step == "validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif step == "discussions":
                state.pull_requests += 1
                self.answer(200, {"num": 1})
            elif step == "preupload":
                files = [f["path"] for f in json.loads(body)["files"]]
                modes = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in files]
                self.answer(200, {"files": modes})
            elif step == "commit":
                self.commit([json.loads(line) for line in body.splitlines() if line.strip()])
            else:
                state.tags.append(json.loads(body)["tag"])
                self.answer(200, {})

        def commit(self, lines: list[dict[str, Any]]) -> None:
            state.pull_requests += "create_pr=1" in self.path  # by versions of the library before 2.0
            for line in lines:
                if line["key"] == "file":
                    state.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            content = {
                "success": True,
                "commitOid": _COMMIT,
                "commitUrl": f"{state.address}/ada/tiny-nuclei/commit/{_COMMIT}",
            }
            self.answer(200, {**content, "pullRequestUrl": f"{state.address}/ada/tiny-nuclei/discussions/1"})

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_port}"
    with running(server):
        yield state
