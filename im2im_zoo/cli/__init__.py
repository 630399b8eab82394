"""Command line interface: parse options, call the library, print. The only package that prints."""

import logging
import os
import sys

from im2im_zoo.cli.interruption import EXIT_CODES, MESSAGE, end_if_urgent, exit_on_signals
from im2im_zoo.cli.plain_text import PlainStream
from im2im_zoo.core.errors import FULL, Im2ImError, InterruptionError


def main() -> None:
    """Run the command line: errors go to stderr without a traceback, unless `--debug` is given.

    Exit codes: 0 success; 1 an error, or a package that is not sound; 2 wrong usage; 3 a package whose
    weights cannot be run here; 129 hung up; 130 interrupted; 143 terminated.
    """
    from im2im_zoo.cli.app import app

    # Names in files and packages reach the terminal as text only, also in warnings of libraries.
    sys.stdout, sys.stderr = PlainStream.around(sys.stdout), PlainStream.around(sys.stderr)
    exit_on_signals()
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("IM2IM_ZOO_DEBUG"))
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(arguments, prog_name="im2im-zoo")
    except Im2ImError as error:
        if debug:
            raise
        _fail(str(error), 130 if isinstance(error, InterruptionError) else 1)
    except SystemExit as stop:
        if stop.code not in (130, *EXIT_CODES.values()):  # of Ctrl-C, by typer, and of signals
            raise
        # Running tasks of zarr end with errors, which asyncio would print as tracebacks.
        logging.getLogger("asyncio").disabled = not debug
        end_if_urgent(int(stop.code))
        _fail(MESSAGE, int(stop.code))
    except ModuleNotFoundError as error:
        if debug:
            raise
        _fail(_missing_module(error), 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in FULL:
            _fail(
                f"no space left to write {error.filename or 'a temporary file'}; free some space, or set TMPDIR to another disk",
                1,
            )
        _fail(
            f"{type(error).__name__}: {error}\nThis is an unexpected error; run the command with --debug for the traceback",
            1,
        )


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


def _fail(message: str, code: int) -> None:
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    # If Ctrl-C arrives while Python runs code from a string, as in creating a dataclass, the process ends by the signal and not
    # with this code, unless another string is run.
    exec("")  # noqa: S102
    sys.exit(code)
