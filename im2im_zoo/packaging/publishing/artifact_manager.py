"""Client of bioimage.io's artifact manager (Hypha), as far as an upload needs it: create, put files, request a review.

bioimageio.spec's own `upload` (0.5.12) speaks the same protocol, but wraps each file into a multipart form, of which an object
store keeps the frame, and does not check whether the store or the last step refused. So only its addresses and its choice of
files are used here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from im2im_zoo.core.errors import PublishingError
from im2im_zoo.core.finite_json import to_json
from im2im_zoo.core.http import http_client, is_fetchable, is_local
from im2im_zoo.packaging.publishing.publishable_files import PublishableFile
from im2im_zoo.packaging.publishing.targets import Target

_COLLECTION = "bioimage-io/bioimage.io"
# The server replaces these words: affable-shark.
_ALIAS = "{animal_adjective}-{animal}"
# A draft, which reviewers publish.
_VERSION = "stage"
_CHUNK = 1024**2
_TIMEOUT_S = 120.0

Report = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """Answer that refuses a request.

    Attributes:
        status: of HTTP.
        detail: reason that the server gives, in one line.
    """

    status: int
    detail: str


class ArtifactManager:
    """Connection to an artifact manager; use it in a `with`.

    Args:
        target: bioimage.io.
        server: address of its `create`.
        token: sent to this server only, not to the stores of the files.
    """

    def __init__(self, target: Target, server: str, token: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._target = target
        self._server = server
        self._client = http_client(timeout_s)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def create_draft(self, manifest: Mapping[str, Any]) -> str:
        """Create a draft without files and return its id, e.g. `bioimage-io/affable-shark`.

        Raises:
            PublishingError: the server refuses, or cannot be reached.
        """
        answer = self._call(
            "create",
            "the draft",
            parent_id=_COLLECTION,
            alias=_ALIAS,
            type="model",
            manifest=manifest,
            version=_VERSION,
        )
        artifact_id = answer.get("id") if isinstance(answer, Mapping) else None
        if not isinstance(artifact_id, str) or not artifact_id:
            raise PublishingError(f"{self._host()} created no draft: {_short(answer)}")
        return artifact_id

    def put_file(self, artifact_id: str, file: PublishableFile, report: Report) -> None:
        """Upload a file into a draft, in place of one of the same name.

        Args:
            artifact_id: id of the draft.
            file: the file.
            report: called with the number of bytes of each part that was sent.

        Raises:
            PublishingError: the server or its store refuses, or the connection breaks.
        """
        url = self._call("put_file", file.name, artifact_id=artifact_id, file_path=file.name)
        local = is_local(self._server)
        if not isinstance(url, str) or not is_fetchable(url, local_http=local):
            raise PublishingError(f"{self._host()} gave no address to send {file.name} to: {_short(url)}")
        # A store takes a body of known length only, and its signature covers an empty type.
        headers = {"Content-Length": str(file.bytes), "Content-Type": ""}
        try:
            with file.path.open("rb") as stream:
                response = self._client.put(url, content=_chunks(stream, report), headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._broken(file.name, error) from error
        self._check(response, f"{file.name} ({file.bytes} bytes)")

    def request_review(self, artifact_id: str, manifest: Mapping[str, Any]) -> None:
        """Ask the reviewers of bioimage.io to look at a complete draft.

        Raises:
            PublishingError: the server refuses, or cannot be reached.
        """
        asked = {**manifest, "status": "request-review"}
        self._call(
            "edit", "the request for a review", artifact_id=artifact_id, version=_VERSION, manifest=asked
        )

    def _call(self, method: str, subject: str, **parameters: object) -> Any:
        """Call a method of the artifact manager and return its answer."""
        url = f"{self._server.removesuffix('/create')}/{method}"
        body = to_json(parameters, default=str).encode()
        try:
            response = self._client.post(url, content=body, headers=self._headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._broken(subject, error) from error
        self._check(response, subject)
        try:
            answer = response.json() if response.content else None
        except ValueError as error:
            raise PublishingError(
                f"{self._host()} did not answer with JSON to `{method}`: {_short(response.text)}"
            ) from error
        if isinstance(answer, Mapping) and answer.get("success") is False:
            detail = _last_line(answer.get("detail"))
            raise PublishingError(f"{self._host()} refused {subject}: {detail}")
        return answer

    def _check(self, response: httpx.Response, subject: str) -> None:
        if response.is_success:
            return
        answer = ServerAnswer(response.status_code, _detail_of(response))
        host = urlsplit(str(response.request.url)).netloc
        text = f"{host} refused {subject} with status {answer.status}"
        if answer.detail:
            text += f" ({answer.detail})"
        raise PublishingError(f"{text}: {self._explain(answer, host)}")

    def _explain(self, answer: ServerAnswer, host: str) -> str:
        """Return what a status means, and what to do."""
        variable, page = self._target.token_variables[0], self._target.token_page
        if host != self._host() and answer.status in (400, 401, 403):
            return "its permission for this file has expired or does not fit"
        reasons = {
            401: f"the token in {variable} is wrong or has expired; create a new one at {page}",
            403: f"the account of the token in {variable} may not do this; log in at https://bioimage.io with it, and ask the "
            "maintainers of bioimage.io for permission to upload",
            404: "the draft or the address does not exist; add --restart to begin a new draft",
            413: "it is larger than the server accepts; leave out a weight format, or ask the maintainers of bioimage.io",
            429: "there were too many requests; wait some minutes",
        }
        if answer.status >= 500:
            return "the server has a problem, which may pass"
        return reasons.get(answer.status, "the request does not fit this server")

    def _broken(self, subject: str, error: Exception) -> PublishingError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return PublishingError(f"the connection to {self._host()} broke while sending {subject}: {reason}")

    def _host(self) -> str:
        return urlsplit(self._server).netloc


def _chunks(stream: Any, report: Report) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
        report(len(chunk))


def _detail_of(response: httpx.Response) -> str:
    """Return the reason of an answer that is not a success: the `detail` of JSON, or the end of a text."""
    try:
        content = response.json()
    except ValueError:
        text = response.text
        return "" if "<" in text else _last_line(text)
    detail = content.get("detail") if isinstance(content, Mapping) else content
    return _last_line(detail)


def _last_line(detail: object) -> str:
    """Return the last line of a reason: that of a traceback is its error."""
    text = "".join(map(str, detail)) if isinstance(detail, list) else str(detail or "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _short(answer: object) -> str:
    return " ".join(str(answer).split())[:200] or "an empty answer"
