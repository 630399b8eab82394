"""`view` as scripts and people call it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile

if TYPE_CHECKING:
    from conftest import Cli


def test_it_writes_a_page_and_a_picture_and_replaces_nothing(cli: "Cli", tmp_path: Path) -> None:
    image, page, picture = (tmp_path / name for name in ("a.tif", "v.html", "v.png"))
    tifffile.imwrite(image, np.arange(400, dtype=np.uint16).reshape(20, 20), metadata={"axes": "YX"})
    done = cli("view", image, "-o", page, "--json")
    assert done.code == 0
    assert json.loads(done.out)["height"] == 20
    assert page.is_file()
    assert cli("view", image, "-o", picture).code == 0
    assert picture.is_file()
    assert "exists already" in cli("view", image, "-o", page).err


def test_wrong_usage_is_named(cli: "Cli", tmp_path: Path) -> None:
    assert "end its name in .png or .html" in cli("view", "a.tif", "-o", tmp_path / "v.jpg").err
    assert (
        "give the number of a plane" in cli("view", "a.tif", "--plane", "top", "-o", tmp_path / "v.png").err
    )
    assert "there is no such file" in cli("view", tmp_path / "none.tif", "-o", tmp_path / "v.png").err
    assert not list(tmp_path.iterdir())
