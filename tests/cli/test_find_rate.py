"""`train --find-lr`: a table and a suggestion, and no run folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TINY = ("--network.kwargs.features=[4, 4, 8, 8, 8, 4]", "--data.patch_size=[32, 32]", "--data.batch_size=2")


def test_a_learning_rate_is_suggested_as_an_override(
    cli: Callable[..., Any], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("train", "nuclei_2d", f"--data.path={images}", *TINY, "--find-lr")
    assert done.code == 0, done.err
    assert "--framework.kwargs.optimizer.kwargs.lr=" in done.err
    assert "smoothed loss" in done.out
    assert list(tmp_path.iterdir()) == []


def test_training_needs_a_folder_for_the_run(cli: Callable[..., Any], images: Path) -> None:
    done = cli("train", "nuclei_2d", f"--data.path={images}")
    assert done.code == 2
    assert "--output RUN" in done.err
