"""`data check`: its exit code, its JSON, its page."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_sound_images_pass_and_are_shown(cli: Callable[..., Any], images: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = cli("data", "check", images, "--html", page)
    assert done.code == 0, done.err
    text = page.read_text()
    assert text.count("data:image/png;base64") == 4
    assert "http" not in text.replace("http-equiv", "")
    assert "nuclei_2d" in text


@pytest.mark.parametrize("headers", [False, True], ids=["voxels", "headers"])
def test_a_leak_fails_and_is_told_in_json_if_voxels_are_read(
    cli: Callable[..., Any], images: Path, tmp_path: Path, headers: bool
) -> None:
    folder = shutil.copytree(images, tmp_path / "set")
    [image] = (folder / "train" / "images").iterdir()
    [target] = (folder / "train" / "targets").iterdir()
    for file, kind in ((image, "images"), (target, "targets")):
        shutil.copy(file, folder / "val" / kind / "again.ome.tif")
    done = cli(
        "data", "check", "nuclei_2d", f"--data.path={folder}", "--json", *(["--headers"] if headers else [])
    )
    found = json.loads(done.out)
    assert done.code == (0 if headers else 1)
    assert found["sound"] is headers
    assert [finding["code"] for finding in found["findings"]] == [] if headers else ["leakage"]
    assert len(found["images"]) == 6


def test_what_is_no_data_is_refused(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("data", "check", tmp_path / "nothing")
    assert done.code == 1
    assert "there is no such recipe, folder or table" in done.err
    assert "--data.path" in cli("data", "check", tmp_path, "--data.path=x").err
