"""The ledger of an unfinished prediction, next to its output, from which an interrupted run resumes.

    ledger.json   the prediction (`identity`) and the decisions at its start (`decisions`)
    notes.json    results that need not be computed again (statistics)
    done.jsonl    one record (`records.Record`) per line, in the order of finishing

Only the run that holds the output's lock (see `run_lock`) opens it.

The voxels of a finished unit must be on the disk before its record, or a power cut would lose them. Records are therefore
collected in memory and written in batches: first the system writes all its buffers to the disk (`os.sync`), then the lines
are appended at once. A kill loses the last batch, a few seconds of work, which is computed again. A truncated line is
ignored.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from im2im_zoo.core.atomic import append, sync_everything, write_text
from im2im_zoo.core.errors import ImageError, PlanError
from im2im_zoo.images.atomic import writing_errors
from im2im_zoo.runtime.execute.records import Record

_FORMAT = 2
_FILE, _NOTES, _LOG, _LOCK = "ledger.json", "notes.json", "done.jsonl", "lock"
# Name of the note that says why the finished units must not be used.
SPOILED = "spoiled"
# Least seconds between batches, and the largest fraction of the time spent on writing.
_INTERVAL, _PART = 2.0, 0.05


@dataclass
class Ledger:
    """The open ledger of one folder, from `start` or `resume`.

    Attributes:
        folder: of the run.
        identity, decisions: JSON values from the start of the prediction.
        done: records of this and earlier runs.
        notes: JSON values by name.
    """

    folder: Path
    identity: Mapping[str, Any]
    decisions: Mapping[str, Any]
    done: set[Record] = field(default_factory=set)
    notes: dict[str, Any] = field(default_factory=dict)
    _waiting: list[Record] = field(default_factory=list)
    _due: float = 0.0
    _opened: os.stat_result = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._opened = (self.folder / _FILE).stat()

    @classmethod
    def start(cls, folder: Path, identity: Mapping[str, Any], decisions: Mapping[str, Any]) -> Self:
        """Create the folder and an empty ledger in it.

        Raises:
            ImageError: the disk is full or not writable.
        """
        with writing_errors(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            plain = {
                "format": _FORMAT,
                "started": datetime.now(UTC).isoformat(timespec="seconds"),
                "identity": identity,
                "decisions": decisions,
            }
            _write_json(folder / _FILE, plain)
            append(folder / _LOG, b"")
        return cls(folder, _plain(identity), _plain(decisions), _due=time.monotonic() + _INTERVAL)

    @classmethod
    def exists(cls, folder: Path) -> bool:
        """Return whether there is a ledger to resume."""
        return (folder / _FILE).is_file()

    @classmethod
    def is_resumable(cls, folder: Path) -> bool:
        """Return whether there is a ledger whose finished units may be used."""
        if not cls.exists(folder):
            return False
        try:
            return SPOILED not in _read_json(folder / _NOTES)
        except PlanError:  # it has no notes yet
            return True

    @classmethod
    def noted(cls, folder: Path, key: str) -> Any:
        """Return a note in a folder, without opening its ledger; None if there is none."""
        if not cls.exists(folder) or not (folder / _NOTES).is_file():
            return None
        return _read_json(folder / _NOTES).get(key)

    @classmethod
    def resume(cls, folder: Path, identity: Mapping[str, Any]) -> Self:
        """Open the ledger of an interrupted run.

        Args:
            folder: of the run.
            identity: inputs that must match those of the run.

        Raises:
            PlanError: the inputs differ, they changed during the run, or the ledger is damaged.
        """
        found = _read_json(folder / _FILE)
        if found.get("format") != _FORMAT or not {"identity", "decisions"} <= set(found):
            raise PlanError(
                f"{folder}: the unfinished prediction was started by another version; start over with --restart"
            )
        _compare(folder, found["identity"], _plain(identity))
        notes = _read_json(folder / _NOTES) if (folder / _NOTES).is_file() else {}
        if spoiled := notes.get(SPOILED):
            raise PlanError(f"{folder} cannot be resumed: {spoiled}")
        done, due = _read_log(folder / _LOG), time.monotonic() + _INTERVAL
        return cls(folder, found["identity"], found["decisions"], done, notes, _due=due)

    def record(self, record: Record) -> None:
        """Record a unit as finished; the record is written to the disk with the next batch."""
        self.done.add(record)
        self._waiting.append(record)
        if time.monotonic() >= self._due:
            self.flush()

    def note(self, key: str, value: Any) -> None:
        """Write a JSON value to the disk at once."""
        self.check_in_place()
        self.notes[key] = _plain(value)
        with writing_errors(self.folder, 0):
            _write_json(self.folder / _NOTES, self.notes)

    @property
    def is_in_place(self) -> bool:
        """Whether the ledger is still the one that was opened; its file is never written again."""
        try:
            found = (self.folder / _FILE).stat()
        except OSError:
            return False
        return os.path.samestat(found, self._opened) and found.st_mtime_ns == self._opened.st_mtime_ns

    def check_in_place(self) -> None:
        """Check that nobody has removed or replaced the folder.

        Raises:
            ImageError: it was removed or replaced.
        """
        if not self.is_in_place:
            raise ImageError(
                f"{self.folder} was removed or replaced while this prediction ran, so its finished tiles are lost; run the "
                "command again, and remove no folder that ends in .incomplete while a prediction runs"
            )

    def flush(self) -> None:
        """Write pending records to the disk, after the voxels that they refer to.

        Raises:
            ImageError: the folder was removed or replaced, or the disk is full.
        """
        if not self._waiting:
            return
        self.check_in_place()
        start = time.monotonic()
        with writing_errors(self.folder, 0):
            # Windows has no such call: there a power cut may lose finished tiles.
            sync_everything()
            append(self.folder / _LOG, "".join(f"{record.to_line()}\n" for record in self._waiting).encode())
        self._waiting.clear()
        now = time.monotonic()
        self._due = now + max(_INTERVAL, (now - start) / _PART)

    def close(self) -> None:
        """Write pending records if possible."""
        if self.is_in_place:
            self.flush()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, default=str), durable=True)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path}: the ledger of the unfinished prediction cannot be read ({error}); start over with --restart"
        ) from error
    if not isinstance(found, dict):
        raise PlanError(f"{path} is not the ledger of an unfinished prediction; start over with --restart")
    return found


def _read_log(path: Path) -> set[Record]:
    """Read the records, and remove a truncated last line so that the next is not appended to it.

    Raises:
        PlanError: a line is not a record.
    """
    content = path.read_bytes() if path.is_file() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    try:
        return {Record.from_line(line) for line in whole.decode(errors="replace").splitlines()}
    except (ValueError, TypeError) as error:
        raise PlanError(f"{path} is damaged ({error}); start over with --restart") from error


def _plain(value: Any) -> Any:
    """Return a value as it is read back from a JSON file."""
    return json.loads(json.dumps(value, default=str))


def _compare(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    lines = list_differences(before, now)
    if not lines:
        return
    raise PlanError(
        f"{folder} holds an unfinished prediction with other inputs or settings, so it cannot be resumed:\n"
        + "\n".join(lines)
        + "\nUse the original settings to resume, choose another output, or start over with --restart"
    )


def list_differences(before: Any, now: Any) -> list[str]:
    """Return lines for a message about the first values that differ between two nested JSON objects."""
    differing = sorted(_differences(before, now), key=lambda found: found[0])
    return [f"  {key}: it was {_short(a)}, now it is {_short(b)}" for key, a, b in differing[:8]]


def _differences(before: Any, now: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        found = []
        for name in sorted(set(before) | set(now)):
            inner = f"{key}.{name}" if key else str(name)
            found += _differences(before.get(name), now.get(name), inner)
        return found
    return [] if before == now else [(key, before, now)]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
