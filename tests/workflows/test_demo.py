"""The demo as a function: its steps can be replaced, and it returns what it wrote."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from im2im_zoo.core.errors import DataError
from im2im_zoo.images import open_image
from im2im_zoo.packaging import ValidationReport
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.run import Run
from im2im_zoo.training.train import train
from im2im_zoo.workflows.demo import DemoSteps, run_demo

SMALL = {"patch_size": (64, 64), "patches_per_image": 2, "batch_size": 2}


def train_a_little(recipe: Recipe, folder: Path) -> Run:
    data = recipe.data.model_copy(update=SMALL)
    kwargs: Mapping[str, object] = {**recipe.network.kwargs, "features": [4, 4, 8, 8, 8, 4]}
    network = recipe.network.model_copy(update={"kwargs": kwargs})
    trainer = {**recipe.trainer, "max_epochs": 1, "accelerator": "cpu"}
    changed = recipe.model_copy(update={"data": data, "network": network, "trainer": trainer})
    return train(changed, folder)


def test_it_returns_what_it_wrote_and_prints_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    messages: list[str] = []
    reports: list[ValidationReport] = []
    steps = DemoSteps(report=messages.append, train=train_a_little, show_validation=reports.append)
    done = run_demo(tmp_path / "demo", steps=steps)
    assert [m[:3] for m in messages if m[1:3] == "/6"] == ["1/6", "2/6", "3/6", "4/6", "5/6", "6/6"]
    assert [report.sound for report in reports] == [True]
    assert set(done.evaluations) == {"model", "Otsu"}
    assert open_image(done.prediction).attrs["im2im_zoo"]["plan"]["tiles"] > 1
    assert done.page.is_file()
    assert (done.package / "rdf.yaml").is_file()
    assert capfd.readouterr().out == ""
    with pytest.raises(DataError, match="exists already"):
        run_demo(tmp_path / "demo", steps=steps)


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").touch()
    with pytest.raises(DataError, match="was not made by the demo"):
        run_demo(tmp_path, overwrite=True)
    assert (tmp_path / "kept.txt").is_file()
