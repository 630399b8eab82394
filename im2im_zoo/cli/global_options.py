"""Options that every command takes, in any place of the line: `--debug`, `--quiet` and `--log-file`."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from im2im_zoo.core.errors import Im2ImError

_LOG_FILE = "--log-file"


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """The options of every command, and the arguments that remain.

    Attributes:
        arguments: without these options.
        debug: whether an error shows its traceback.
        quiet: whether only results, warnings and errors are printed.
        log_file: receives the messages, with their times; an empty text if no file was named.
    """

    arguments: tuple[str, ...]
    debug: bool = False
    quiet: bool = False
    log_file: str | None = None

    @classmethod
    def of(cls, arguments: Sequence[str]) -> "GlobalOptions":
        """Return the options among the arguments of the command line.

        Example:
            >>> GlobalOptions.of(["show", "x", "--quiet", "--log-file=a.log"])
            GlobalOptions(arguments=('show', 'x'), debug=False, quiet=True, log_file='a.log')
        """
        debug, quiet, log_file = bool(os.environ.get("IM2IM_ZOO_DEBUG")), False, None
        kept: list[str] = []
        remaining = iter(arguments)
        for argument in remaining:
            if argument == "--debug":
                debug = True
            elif argument == "--quiet":
                quiet = True
            elif argument == _LOG_FILE:
                log_file = next(remaining, "")
            elif argument.startswith(f"{_LOG_FILE}="):
                log_file = argument.partition("=")[2]
            else:
                kept.append(argument)
        return cls(tuple(kept), debug, quiet, log_file)

    @property
    def json(self) -> bool:
        """Whether the command prints JSON, and so its error."""
        return "--json" in self.arguments

    def apply(self, until: ExitStack) -> None:
        """Direct the messages as these options say, until the stack is closed.

        Raises:
            Im2ImError: the log file cannot be written.
        """
        if not (self.quiet or self.log_file is not None):
            return
        from im2im_zoo.cli import messages

        if self.quiet:
            until.enter_context(messages.quiet())
        if self.log_file is not None:
            if not self.log_file or self.log_file.startswith("-"):
                raise Im2ImError(f"{_LOG_FILE} is without a file; give one: {_LOG_FILE} FILE")
            until.enter_context(messages.log_to(Path(self.log_file)))

    def log_error(self, message: str) -> None:
        """Write an error, which was printed, to the log file too."""
        if self.log_file is not None:
            from im2im_zoo.cli import messages

            messages.log_error(message)
