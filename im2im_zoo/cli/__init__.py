"""The command line. The only place that prints; every command is a thin one over the library."""

import logging
import os
import signal
import sys

from im2im_zoo.core.errors import FULL, Im2ImError, InterruptionError


def main() -> None:
    """Run the command line: errors go to stderr without a traceback, unless `--debug` is given.

    Exit codes: 0 done; 1 an error, or a package that is not sound; 2 wrong usage; 130 interrupted.
    """
    from im2im_zoo.cli.app import app

    # A cluster's wall time ends a job by SIGTERM: leave as by Ctrl-C, cleaning up on the way.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    debug = "--debug" in sys.argv[1:] or bool(os.environ.get("IM2IM_ZOO_DEBUG"))
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    try:
        app(arguments, prog_name="im2im-zoo")
    except Im2ImError as error:
        if debug:
            raise
        _fail(str(error), 130 if isinstance(error, InterruptionError) else 1)
    except SystemExit as stop:
        if stop.code not in (130, 143):  # what typer makes of Ctrl-C, and SIGTERM
            raise
        # zarr's tasks that were under way end with errors, which asyncio would print as tracebacks.
        logging.getLogger("asyncio").disabled = not debug
        _fail("interrupted; nothing that looks finished was left", int(stop.code))
    except ModuleNotFoundError as error:
        if debug:
            raise
        _fail(_missing_module(error), 1)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in FULL:
            _fail(
                f"no space is left to write {error.filename or 'a temporary file'}: free some, or set TMPDIR",
                1,
            )
        _fail(f"{type(error).__name__}: {error}\nThis should not happen: --debug shows where it did", 1)


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
    # If a Ctrl-C came while Python ran code from a string, as in making a dataclass, it ends by the signal and not with this
    # code, unless it runs another string.
    exec("")  # noqa: S102
    sys.exit(code)
