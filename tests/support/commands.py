"""Runs the commands of im2im-zoo for tests, each in a process of its own that begins with all imports done.

Imports are most of what a short command takes, so one process imports what the commands need and runs nothing; each command
is a fork of it. That the commands start from nothing is tested by those of the wheel and by the demo.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "im2im_zoo.training.train",
        "im2im_zoo.workflows.export_run",
        "im2im_zoo.cli.train",
        "im2im_zoo.evaluation",
        "im2im_zoo.packaging.export.export",
        "im2im_zoo.runtime.predictor",
        "monai.networks.nets",
        "monai.transforms",
        "bioimageio.core",
        "onnx",
        "onnxruntime",
    ]
)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


def command(*arguments: object, check: bool = True) -> Done:
    """Run `im2im-zoo ARGUMENTS`."""
    done = in_a_process(im2im_zoo, list(map(str, arguments)))
    assert not check or done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


def verdicts_of_core(rdf: Path, formats: Sequence[str]) -> dict[str, tuple[str, list[str]]]:
    """Return the verdict of bioimageio.core on each weight format, and the messages of its warnings."""
    done = in_a_process(_test_model, [str(rdf), *formats])
    assert done.returncode == 0, done.stderr
    return {name: (status, messages) for name, status, messages in json.loads(done.stdout.splitlines()[-1])}


def im2im_zoo(arguments: list[str]) -> None:
    """The command line of this process."""
    from im2im_zoo.cli import main

    sys.argv = ["im2im-zoo", *arguments]
    main()


def press_ctrl_c_when_there_is(path: Path) -> None:
    """Send the signal of Ctrl-C to this process as soon as there is a file or folder."""

    def interrupt() -> None:
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=interrupt, daemon=True).start()


def _test_model(arguments: list[str]) -> None:
    from bioimageio.core import test_model

    rdf, *formats = arguments
    verdicts = []
    for weights in formats:
        summary = test_model(rdf, weight_format=weights, determinism="full")  # type: ignore[arg-type]
        messages = [w.msg for detail in summary.details for w in detail.warnings if w.severity > 20]
        verdicts.append((weights, summary.status, messages))
    sys.stdout.write(json.dumps(verdicts) + "\n")


def in_a_process(target: Callable[[list[str]], None], arguments: list[str]) -> Done:
    """Call a function, which a module has, with arguments in a process of its own; a signal that ends it is its return code."""
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "stdout", Path(folder) / "stderr"
        process = _CONTEXT.Process(target=_with_output_in, args=(files, target, arguments))
        process.start()
        process.join()
        stdout, stderr = (file.read_text(encoding="utf-8") for file in files)
        return Done(process.exitcode or 0, stdout, stderr)


def _with_output_in(
    files: tuple[Path, Path], target: Callable[[list[str]], Any], arguments: list[str]
) -> None:
    """Run a function with stdout and stderr in files, those of the libraries below Python too."""
    for stream, file in zip((1, 2), files, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), stream)
    # The streams of the process that was forked are not the files', and know nothing of a command's width or encoding.
    sys.stdout, sys.stderr = (
        open(stream, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 open until the process ends
        for stream in (1, 2)
    )
    target(arguments)
