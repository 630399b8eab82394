"""Files and folders are written in one step: complete, or as they were before."""

import hashlib
import json
import math
from pathlib import Path

import pytest

from im2im_zoo.core.atomic import atomic_output, move_into_place, write_json, write_text
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


def test_a_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
