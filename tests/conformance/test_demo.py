"""The demo ends with a model that has learned, and names files that are there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command

from im2im_zoo.images import open_image

pytestmark = pytest.mark.slow


def test_the_demo_learns_and_names_what_it_made(tmp_path: Path) -> None:
    demo = [sys.executable, "-m", "im2im_zoo", "demo"]
    done = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[-4:])
    for name in ("package", "prediction", "nuclei", "report"):
        assert (tmp_path / named[name]).exists()
    page = (tmp_path / named["report"]).read_text(encoding="utf-8")
    assert page.count("data:image/png") >= 4
    prediction = tmp_path / named["prediction"]
    nuclei = len((tmp_path / named["nuclei"]).read_text().splitlines()) - 1
    found, labelled = re.findall(r"Nuclei: (\d+) found, (\d+) in the labels", done.stdout)[0]
    assert int(found) == nuclei == open_image(prediction / "labels" / "instances").to_numpy().max()
    assert abs(nuclei - int(labelled)) <= 0.2 * int(labelled)
    target = next((tmp_path / "im2im-zoo-demo" / "images" / "val" / "targets").iterdir())
    evaluated = command("evaluate", prediction, target, "--task", "semantic", "--json")
    dice = json.loads(evaluated.stdout)["figures"]["dice"]
    assert dice > 0.92
    assert f"{dice:.3f}" in done.stdout
    assert open_image(prediction).attrs["im2im_zoo"]["plan"]["tiles"] > 1
    again = subprocess.run(demo, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "--overwrite" in again.stderr
