"""Runs a command in a fork of this process, which has imported everything already."""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def start_fork(command: Callable[[], None], text: Path) -> int:
    """Start a command in a fork, and return the id of its process, for `os.waitpid`.

    The fork ends with the exit code of the command (99: another exception than `SystemExit`), and never returns.

    Args:
        command: the command.
        text: file for all that it prints.
    """
    process = os.fork()
    if process:
        return process
    code = 99
    try:
        printed = os.open(text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(printed, stream)
        sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
        command()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    except BaseException:  # noqa: BLE001 the fork must never return
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
