"""Command line interface: parse options, call the library, print. The only package that prints."""

import json
import logging
import sys
from contextlib import ExitStack, suppress
from typing import NoReturn

from im2im_zoo.cli.global_options import GlobalOptions
from im2im_zoo.cli.interruption import EXIT_CODES, MESSAGE, end_if_urgent, exit_on_signals
from im2im_zoo.cli.plain_text import PlainStream
from im2im_zoo.core.errors import FULL, Im2ImError, InterruptionError


def main() -> None:
    """Run the command line: errors go to stderr without a traceback, unless `--debug` is given.

    With `--json`, an error is also printed to stdout, as one JSON object: `{"error": {"kind", "message", "exit_code"}}`.

    Exit codes: 0 success; 1 an error, or a package that is not sound; 2 wrong usage; 3 a package whose
    weights cannot be run here; 129 hung up; 130 interrupted; 143 terminated.
    """
    # Names in files and packages reach the terminal as text only, also in warnings of libraries.
    sys.stdout, sys.stderr = PlainStream.around(sys.stdout), PlainStream.around(sys.stderr)
    exit_on_signals()
    given = GlobalOptions.of(sys.argv[1:])
    try:
        with ExitStack() as messages:
            _run(given, messages)
    finally:
        _restart_strings()


def _run(given: GlobalOptions, messages: ExitStack) -> None:
    """Run a command, and end the process with the exit code of its error."""
    debug = given.debug
    try:
        given.apply(messages)
        _call(given)
    except Im2ImError as error:
        if debug:
            raise
        _fail(given, error, str(error), 130 if isinstance(error, InterruptionError) else 1)
    except SystemExit as stop:
        if stop.code not in (130, *EXIT_CODES.values()):  # of Ctrl-C, by typer, and of signals
            raise
        # Running tasks of zarr end with errors, which asyncio would print as tracebacks.
        logging.getLogger("asyncio").disabled = not debug
        end_if_urgent(int(stop.code))
        _fail(given, stop, MESSAGE, int(stop.code))
    except ModuleNotFoundError as error:
        if debug:
            raise
        _fail(given, error, _missing_module(error), 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in FULL:
            message = f"no space left to write {error.filename or 'a temporary file'}; free some space, or set TMPDIR to another disk"
            _fail(given, error, message, 1)
        message = f"{type(error).__name__}: {error}\nThis is an unexpected error; run the command with --debug for the traceback"
        _fail(given, error, message, 1)


def _call(given: GlobalOptions) -> None:
    """Call the command; with `--json`, wrong usage is printed to stdout as well."""
    from im2im_zoo.cli.app import app

    if not given.json:
        app(given.arguments, prog_name="im2im-zoo")
        return
    try:
        code = app(given.arguments, prog_name="im2im-zoo", standalone_mode=False)
    except Exception as error:
        show, text, code = (getattr(error, name, None) for name in ("show", "format_message", "exit_code"))
        if not (callable(show) and callable(text) and isinstance(code, int)):  # not wrong usage
            raise
        show()
        _print_error("UsageError", text(), code)
    sys.exit(code if isinstance(code, int) else 0)


def _missing_module(error: ModuleNotFoundError) -> str:
    if error.name and error.name.split(".")[0] in (
        "pytorch_lightning",
        "lightning_fabric",
        "torchmetrics",
        "monai",
        "onnx",
        "onnxscript",
        "tensorboard",
    ):
        return f'this command needs {error.name}: pip install "im2im_zoo[train]"'
    return f"{error}; install it in this environment"


def _fail(given: GlobalOptions, error: BaseException, message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    given.log_error(message)
    if given.json:
        kind = "Interruption" if isinstance(error, SystemExit) else type(error).__name__
        _print_error(kind, message, code)
    sys.exit(code)


def _print_error(kind: str, message: str, code: int) -> None:
    with suppress(BrokenPipeError):  # nobody reads it
        print(
            json.dumps({"error": {"kind": kind, "message": message, "exit_code": code}}, indent=2), flush=True
        )


def _restart_strings() -> None:
    # If Ctrl-C arrives while Python runs code from a string, as in creating a dataclass, the process ends by the signal and not
    # with its exit code, unless another string is run.
    exec("")  # noqa: S102
