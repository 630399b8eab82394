"""`compare` as scripts and people call it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
import pytest
import tifffile

if TYPE_CHECKING:
    from conftest import Cli


def test_it_prints_the_differences_and_draws_them(
    cli: "Cli", nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "nuclei.tif", nuclei_2d[0][:96, :112], metadata={"axes": "YX"})
    formats = ("--weights", "onnx", "--weights", "torchscript")
    arguments = ("compare", "nuclei_2d", *formats, "--image", tmp_path / "nuclei.tif")
    done = cli(*arguments, "--picture", tmp_path / "picture.png", "--json")
    assert done.code == 0
    (output,) = json.loads(done.out)["outputs"]
    assert output["largest"] < 1e-4
    assert output["correlation"] == pytest.approx(1)
    with PIL.Image.open(tmp_path / "picture.png") as picture:
        assert picture.width > 3 * 112


def test_wrong_usage_is_named(cli: "Cli", tmp_path: Path) -> None:
    arguments = ("compare", "nuclei_2d", "--image", tmp_path / "nuclei.tif")
    assert "one package needs two weights formats" in cli(*arguments).err
    assert "must end with .png" in cli(*arguments, "--picture", tmp_path / "picture.jpg").err
    assert "is below 0" in cli(*arguments, "--tolerance", "-1").err
