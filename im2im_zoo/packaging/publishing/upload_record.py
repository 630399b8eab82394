"""Record of an upload in the user's state folder, so that the same command continues a broken upload and repeats no finished one.

It holds no token. Its name depends on the server and on every byte that is sent: a changed package has a record of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import platformdirs

from im2im_zoo.core.atomic import write_json
from im2im_zoo.core.errors import PublishingError
from im2im_zoo.core.finite_json import read_json_object
from im2im_zoo.core.hashing import sha256_of_parts
from im2im_zoo.packaging.publishing.publishable_files import PublishableFile


@dataclass(frozen=True, slots=True)
class UploadRecord:
    """State of an upload.

    Attributes:
        artifact_id: name that the server has given the draft; empty before.
        sent: names of the files that the server has confirmed.
        finished: whether a review was requested.
        attempts: how many drafts were asked for. More than one: the answer to a request was lost.
    """

    path: Path = field(repr=False)
    artifact_id: str = ""
    sent: tuple[str, ...] = ()
    finished: bool = False
    attempts: int = 0

    def saved(self, **changes: Any) -> "UploadRecord":
        """Return the record with changes, after writing it.

        Raises:
            PublishingError: the state folder cannot be written.
        """
        record = replace(self, **changes)
        content = asdict(record)
        del content["path"]
        try:
            write_json(self.path, content, durable=True)
        except OSError as error:
            raise PublishingError(
                f"{self.path} cannot be written: {error}; it records what was sent, so set XDG_STATE_HOME to a folder that "
                "you can write to"
            ) from error
        return record


@contextmanager
def open_record(
    server: str, files: tuple[PublishableFile, ...], *, restart: bool = False
) -> Iterator[UploadRecord]:
    """Read the record of an upload, and keep other processes from the same upload meanwhile.

    Args:
        server: its address.
        files: all files to send.
        restart: whether to ignore an earlier upload.

    Raises:
        PublishingError: another process uploads the same package, or the state folder cannot be written.
    """
    parts = [server, *(text for file in files for text in ("\0", file.name, "\0", file.sha256))]
    folder = state_folder()
    path = folder / f"{sha256_of_parts(parts)[:32]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_suffix(".lock"), timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise PublishingError(
            "another process publishes this package now; wait until it has ended"
        ) from error
    except OSError as error:
        raise PublishingError(
            f"{folder} cannot be written: {error}; set XDG_STATE_HOME to a folder that you can write to"
        ) from error
    try:
        yield UploadRecord(path) if restart else _read(path)
    finally:
        lock.release()


def state_folder() -> Path:
    """Return the folder of the records."""
    return Path(platformdirs.user_state_dir("im2im_zoo")) / "uploads"


def _read(path: Path) -> UploadRecord:
    if not path.is_file():
        return UploadRecord(path)
    try:
        content = read_json_object(path)
        sent = tuple(str(name) for name in content["sent"])
        return UploadRecord(
            path, str(content["artifact_id"]), sent, content["finished"] is True, int(content["attempts"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PublishingError(
            f"{path} records an upload and cannot be read: {error}; start over with --restart"
        ) from error
