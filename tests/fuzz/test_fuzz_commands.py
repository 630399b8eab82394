"""A sample of `python tests/fuzz`: damaged files give a result or a message, and nothing else."""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from commands import in_a_process

# `validate` and `train` take longest.
RUNS = {"show": 50, "validate": 25, "predict": 50, "data check": 50, "train": 40}


def run_some(arguments: Sequence[str]) -> None:
    """Run damaged files through one command, and print the runs that failed."""
    from fuzzing import Corpus, fuzz, prepare_environment

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        corpus = Corpus(folder / "corpus")
        prepare_environment(folder)
        found = fuzz(
            corpus,
            folder / "runs",
            range(RUNS[arguments[0]]),
            seed=int(arguments[1]),
            commands=[arguments[0]],
        )
    sys.stdout.write(json.dumps([asdict(run) for run in found]))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("command", RUNS)
def test_damaged_files_give_a_result_or_a_message(command: str) -> None:
    done = in_a_process(run_some, [command, "1"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
