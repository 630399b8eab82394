"""The framework of docs/adding-a-framework.md trains as it stands there."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from im2im_zoo.recipe.load import load_recipe, parse_value
from im2im_zoo.samples import write_samples
from im2im_zoo.training.run import load_framework
from im2im_zoo.training.train import train

NAME = "im2im_zoo.frameworks.residual"


@pytest.fixture
def text(repository: Path) -> str:
    return (repository / "docs" / "adding-a-framework.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def residual(text: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that the text shows, importable under its path."""
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    monkeypatch.setattr("im2im_zoo.frameworks.residual", module, raising=False)
    exec(compile(blocks(text, "python")[0], NAME, "exec"), vars(module))
    return module


def test_the_framework_of_the_text_trains(residual: ModuleType, text: str, tmp_path: Path) -> None:
    framework = parse_value(blocks(text, "yaml")[0])["framework"]
    changes: list[tuple[str, object]] = [
        ("framework", framework),
        ("network.kwargs.features", [4, 4, 8, 8, 8, 4]),
        ("data.path", str(write_samples("nuclei_2d", tmp_path / "images"))),
        ("data.patch_size", [32, 32]),
        ("data.patches_per_image", 2),
        ("trainer", {"max_epochs": 1, "accelerator": "cpu"}),
        ("monitor", "val_loss"),
        ("monitor_mode", "min"),
    ]
    run = train(load_recipe("nuclei_2d", changes), tmp_path / "run")
    assert {"train_loss", "val_loss"} <= set(run.metrics[0])
    assert type(load_framework(run).exported_network()) is residual.Difference


def test_the_test_of_the_text_passes(residual: ModuleType, text: str) -> None:
    namespace: dict[str, object] = {}
    exec(compile(blocks(text, "python")[1], "test_residual", "exec"), namespace)
    tests = [value for name, value in namespace.items() if name.startswith("test_")]
    assert len(tests) == 1
    assert callable(tests[0])
    tests[0]()


def test_the_text_counts_its_lines(text: str) -> None:
    assert f"It has {len(blocks(text, 'python')[0].splitlines())} lines" in text
