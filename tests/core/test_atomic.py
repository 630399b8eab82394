"""Files and folders are written in one step: complete, or as they were before."""

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from im2im_zoo.core import atomic
from im2im_zoo.core.atomic import (
    atomic_output,
    exchange,
    find_leftovers,
    hidden_sibling,
    move_into_place,
    remove_folder,
    remove_leftovers,
    write_json,
    write_text,
)
from im2im_zoo.core.finite_json import to_json
from im2im_zoo.core.hashing import sha256, sha256_of, sha256_of_parts


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_by_the_new_one(tmp_path: Path, durable: bool) -> None:
    write_text(tmp_path / "a.txt", "old", durable=durable)
    write_text(tmp_path / "a.txt", "new µ", durable=durable)
    assert (tmp_path / "a.txt").read_bytes() == "new µ".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127, "日" * 85])
def test_a_file_of_the_longest_name_is_written_in_one_step(tmp_path: Path, name: str) -> None:
    write_text(tmp_path / name, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(name, "new")]


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")

    def interrupted() -> None:
        with atomic_output(tmp_path / "a.txt") as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("durable", [False, True])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, durable: bool) -> None:
    for text in ("old", "new"):
        with atomic_output(tmp_path / "run", durable=durable) as partial:
            partial.mkdir()
            (partial / text).write_text(text)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool
) -> None:
    if not swaps:
        monkeypatch.setattr(atomic, "exchange", lambda first, second: False)
    for name in ("run", "partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    rename = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self.name == "partial":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="no"):
        move_into_place(tmp_path / "partial", tmp_path / "run")
    assert (tmp_path / "run" / "run").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["partial", "run"]


@pytest.mark.skipif(sys.platform != "linux", reason="the disk of a test swaps two folders")
def test_two_folders_swap_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"in {name}").touch()
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["in b"]
    assert not exchange(tmp_path / "a", tmp_path / "missing")


@pytest.fixture
def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_leftovers_of_ended_processes_are_removed_and_no_others(tmp_path: Path, ended: int) -> None:
    path, running = tmp_path / "a.tif", os.getppid()
    path.touch()
    kept = [f".a.tif.partial-{running}-abcdef", f".b.tif.partial-{ended}-abcdef", ".a.tif.partial", "a.tif"]
    gone = [
        f".a.tif.partial-{ended}-abcdef",
        f".removed-{ended}-abcdef.a.tif",
        f".a.tif.replaced-{ended}-012345",
    ]
    for name in (*kept, *gone):
        (tmp_path / name).touch()
    assert sorted(p.name for p in find_leftovers(path)) == sorted(gone)
    remove_leftovers(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)


def test_what_was_stepping_aside_comes_back_if_nothing_took_its_place(tmp_path: Path, ended: int) -> None:
    (tmp_path / f".run.replaced-{ended}-abcdef").mkdir()
    (tmp_path / f".run.replaced-{ended}-abcdef" / "old").touch()
    remove_leftovers(tmp_path / "run")
    assert (tmp_path / "run" / "old").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["a.incomplete", f"{'é' * 120}.incomplete"])
def test_a_folder_is_removed_in_one_step_and_what_a_kill_leaves_of_it_is_known(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
    (tmp_path / name).mkdir()
    remove_folder(tmp_path / name)
    assert not (tmp_path / name).exists()
    [left] = tmp_path.iterdir()
    assert find_leftovers(tmp_path / name) == [left]


@pytest.mark.parametrize("name", ["a.b.tif", f"{'a' * 240}.tif"])
def test_a_hidden_sibling_is_known_by_its_name(name: str, tmp_path: Path) -> None:
    hidden = hidden_sibling(tmp_path / name, "partial")
    hidden.touch()
    assert find_leftovers(tmp_path / name) == [hidden]
    assert not find_leftovers(tmp_path / "b.tif")


def test_json_has_null_in_place_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    content = {"loss": math.nan, "range": (-math.inf, 1.5), "nested": [{"x": math.inf}], "n": 3}
    expected = {"loss": None, "range": [None, 1.5], "nested": [{"x": None}], "n": 3}
    write_json(tmp_path / "a.json", content, indent=2)
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == json.loads(to_json(content)) == expected
    assert text.endswith("}\n")


def test_hashes_are_those_of_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes("µ".encode())
    assert sha256(tmp_path / "a") == sha256_of("µ") == sha256_of("µ".encode())
    assert sha256_of("µ") == hashlib.sha256("µ".encode()).hexdigest()


def test_a_hash_of_parts_is_that_of_the_whole() -> None:
    assert sha256_of_parts(iter(["µ", b"\0b", ""])) == sha256_of("µ".encode() + b"\0b")
