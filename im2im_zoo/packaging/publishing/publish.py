"""Publish a package: check it, upload it, and state what is on the server at any moment."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from im2im_zoo.core.errors import PublishingError
from im2im_zoo.packaging.publishing.artifact_manager import ArtifactManager
from im2im_zoo.packaging.publishing.huggingface import push_to_huggingface
from im2im_zoo.packaging.publishing.publication import Publication, prepare_publication
from im2im_zoo.packaging.publishing.targets import TargetName, read_token
from im2im_zoo.packaging.publishing.upload_record import UploadRecord, open_record

# Called with the bytes sent, all bytes, and the name of the file.
Progress = Callable[[int, int, str], None]
_MY_DRAFTS = "https://bioimage.io/#/my-artifacts"


@dataclass(frozen=True, slots=True)
class Published:
    """Result of a publication.

    Attributes:
        target: "bioimage.io" or "huggingface".
        id: id of the draft, or the repository.
        address: address of the RDF of the draft, or of the repository.
        page: page on which to follow the review.
        files: number of files.
        already: whether an earlier command had finished it, so that nothing was sent now.
    """

    target: TargetName
    id: str
    address: str
    page: str
    files: int
    already: bool = False

    def plain(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return asdict(self)


def publish_package(
    source: str | Path,
    to: TargetName,
    *,
    repository: str = "",
    restart: bool = False,
    progress: Progress | None = None,
) -> Published:
    """Publish a package, if nothing stands against it. After a broken upload, the same call continues.

    The token is read from the environment: `BIOIMAGEIO_HYPHA_UPLOAD_TOKEN`, or `HF_TOKEN`.

    Args:
        source: a package, as for `open_package`.
        to: "bioimage.io" or "huggingface".
        repository: `OWNER/NAME` on the Hugging Face Hub.
        restart: whether to begin a new draft, whatever was sent before.
        progress: called with the bytes sent, all bytes, and the name of the file.

    Raises:
        PackageError: it is not a package.
        PublishingError: there is no token, the package would be refused, or the upload failed; the message states what is on
            the server.
    """
    with prepare_publication(source, to, repository=repository) as publication:
        return upload_publication(publication, restart=restart, progress=progress)


def upload_publication(
    publication: Publication, *, restart: bool = False, progress: Progress | None = None
) -> Published:
    """Upload a prepared publication; see `publish_package`."""
    token = read_token(publication.target)
    if publication.errors:
        lines = [f"  {f.field}: {f.message}" + _remedy(f.command) for f in publication.errors]
        text = f"{publication.package.source} would be refused, so nothing was sent:\n"
        raise PublishingError(text + "\n".join(lines))
    report = progress or _ignore
    if publication.target.name == "huggingface":
        address = push_to_huggingface(publication, token)
        number = len(publication.files)
        return Published("huggingface", publication.repository, address, f"{address}/discussions", number)
    with open_record(publication.server, publication.files, restart=restart) as record:
        return _upload_draft(publication, token, record, report)


def _upload_draft(
    publication: Publication, token: str, record: UploadRecord, progress: Progress
) -> Published:
    """Create the draft, send the files that are not there yet, and request a review."""
    if record.finished:
        return _published(publication, record, already=True)
    try:
        with ArtifactManager(publication.target, publication.server, token) as manager:
            if not record.artifact_id:
                record = record.saved(attempts=record.attempts + 1)
                record = record.saved(artifact_id=manager.create_draft(publication.manifest))
            done = sum(file.bytes for file in publication.files if file.name in record.sent)
            for file in publication.files:
                if file.name in record.sent:
                    continue
                counter = _Counter(done, publication.total_bytes, file.name, progress)
                manager.put_file(record.artifact_id, file, counter.add)
                done += file.bytes
                record = record.saved(sent=(*record.sent, file.name))
            manager.request_review(record.artifact_id, publication.manifest)
            record = record.saved(finished=True)
    except PublishingError as error:
        raise PublishingError(f"{error}\n{_state_of(publication, record)}") from error
    return _published(publication, record, already=False)


@dataclass(slots=True)
class _Counter:
    """Count of the bytes that were sent, for the progress."""

    done: int
    total: int
    name: str
    progress: Progress

    def add(self, number: int) -> None:
        self.done += number
        self.progress(self.done, self.total, self.name)


def _state_of(publication: Publication, record: UploadRecord) -> str:
    """Return what is on the server after a failure, and how to continue."""
    if not record.artifact_id:
        text = "Nothing was sent. Run the same command to try again."
        if record.attempts > 1:
            text += f" Attempts so far: {record.attempts}; if an answer was lost, {_MY_DRAFTS} lists an empty draft to delete."
        return text
    number, total = len(record.sent), len(publication.files)
    return (
        f"The draft {record.artifact_id} has {number} of {total} files and is not in review. Run the same command to send the "
        f"rest, or delete the draft at {_MY_DRAFTS} and use --restart. A changed package begins a new draft."
    )


def _published(publication: Publication, record: UploadRecord, *, already: bool) -> Published:
    alias = record.artifact_id.rpartition("/")[2]
    root = publication.server.partition("/public/")[0]
    address = f"{root}/bioimage-io/artifacts/{alias}/files/rdf.yaml?version=stage"
    return Published("bioimage.io", record.artifact_id, address, _MY_DRAFTS, len(publication.files), already)


def _remedy(command: str) -> str:
    return f"\n    {command}" if command else ""


def _ignore(done: int, total: int, name: str) -> None:
    pass
