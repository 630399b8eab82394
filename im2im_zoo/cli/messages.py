"""Messages of the commands and notices of the library: to stderr, and with the time to the file of `--log-file`.

The library writes notices to the logger `im2im_zoo`, as libraries do; programs that use it from Python choose their handlers.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from im2im_zoo.cli.plain_text import plain_text
from im2im_zoo.core.errors import Im2ImError

errors = Console(stderr=True, highlight=False, soft_wrap=True)
_LOG = logging.getLogger("im2im_zoo")


class _ToStderr(logging.Handler):
    """Handler that prints each message as one line, above a progress bar if one is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, unless it is for the log file only."""
        if not getattr(record, "file_only", False):
            errors.print(plain_text(record.getMessage()), markup=False)


class _ToFile(logging.FileHandler):
    """Handler that writes each message with its time."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a message, with control characters written out."""
        return (
            f"{self.formatter.formatTime(record) if self.formatter else ''} {plain_text(record.getMessage())}"
        )


_stderr = _ToStderr()


def show_notices() -> None:
    """Print the messages and the library's notices to stderr, from now on."""
    if _stderr not in _LOG.handlers:
        _LOG.addHandler(_stderr)
        _LOG.setLevel(logging.INFO)
        # A library that configures the root logger would print them a second time.
        _LOG.propagate = False


@contextmanager
def quiet() -> Iterator[None]:
    """Print warnings and errors only, and no progress."""
    _stderr.setLevel(logging.WARNING)
    try:
        yield
    finally:
        _stderr.setLevel(logging.NOTSET)


def is_quiet() -> bool:
    """Return whether only warnings and errors are printed."""
    return _stderr.level >= logging.WARNING


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Also append the messages to a file, each with its time.

    Raises:
        Im2ImError: the file cannot be written.
    """
    try:
        handler = _ToFile(path, encoding="utf-8")
    except OSError as error:
        raise Im2ImError(
            f"--log-file {path}: cannot be written ({error.strerror}); name another file"
        ) from error
    handler.setFormatter(logging.Formatter())
    _LOG.addHandler(handler)
    try:
        yield
    finally:
        _LOG.removeHandler(handler)
        handler.close()


def print_line(message: str = "", *, file_only: bool = False) -> None:
    """Print a message for the user on stderr, and write it to the log file.

    Args:
        message: one line, or several; one that begins with `warning:` is also printed by `--quiet`.
        file_only: whether to leave it out on stderr.
    """
    level = logging.WARNING if message.startswith("warning:") else logging.INFO
    _LOG.log(level, message, extra={"file_only": file_only})


def log_error(message: str) -> None:
    """Write an error to the log file; it has been printed already."""
    _LOG.error(f"error: {message}", extra={"file_only": True})


show_notices()
