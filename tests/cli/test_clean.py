"""`im2im-zoo clean` lists and removes what killed commands left, and nothing that is in use or can be resumed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from im2im_zoo.runtime.execute.delivered import TILES, note_delivery
from im2im_zoo.runtime.execute.ledger import Ledger
from im2im_zoo.runtime.execute.run_lock import hold_output


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Outputs, and what killed commands left of others."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    (tmp_path / "done.tif").touch()
    (tmp_path / f".done.tif.partial-{process.pid}-abcdef").touch()
    (tmp_path / f".package.replaced-{process.pid}-abcdef").mkdir()
    Ledger.start(tmp_path / "resumable.tif.incomplete", {}, {})
    (tmp_path / "lost.tif.incomplete").mkdir()
    finished = Ledger.start(tmp_path / "done.tif.incomplete", {}, {})
    note_delivery(finished, TILES, {0: tmp_path / "done.tif"})
    (tmp_path / "gone.tif.incomplete.lock").touch()
    return tmp_path


def names(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def test_it_lists_and_removes_nothing_by_default(cli: Callable[..., Any], folder: Path) -> None:
    before = names(folder)
    done = cli("clean", folder)
    assert done.code == 0
    assert done.err.count("to remove: ") + done.out.count("to remove: ") == 5
    assert "--yes" in done.err + done.out
    assert names(folder) == before


def test_it_removes_what_nobody_needs(cli: Callable[..., Any], folder: Path) -> None:
    assert cli("clean", folder, "--yes").code == 0
    assert names(folder) == {"done.tif", "resumable.tif.incomplete"}
    assert cli("clean", folder, "--yes", "--resumable").code == 0
    assert names(folder) == {"done.tif"}
    assert "no leftovers" in "".join((last := cli("clean", folder)).out + last.err)


def test_it_keeps_what_a_running_command_uses(cli: Callable[..., Any], folder: Path) -> None:
    work = folder / "resumable.tif.incomplete"
    with hold_output(work):
        assert cli("clean", folder, "--yes", "--resumable").code == 0
        assert work.is_dir()
        assert (folder / "resumable.tif.incomplete.lock").is_file()


def test_a_folder_that_is_missing_is_reported(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("clean", tmp_path / "nowhere")
    assert done.code == 1
    assert "is not a folder" in done.err
