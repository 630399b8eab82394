"""The public names, their examples, and the names of earlier versions."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import im2im_zoo

NAMES = [
    "Format", "Framework", "Model", "Plan", "PredictionResult", "Recipe", "Resources", "Settings", "create_image", "evaluate",
    "export_package", "export_run", "load_framework", "load_recipe", "memory_image", "open_image", "open_model", "open_package",
    "open_run", "train", "validate", "write_image", "write_view",
]  # fmt: skip


def test_the_public_names_are_these() -> None:
    assert im2im_zoo.__all__ == NAMES


def test_each_is_there_whatever_was_imported_before() -> None:
    script = "import im2im_zoo, im2im_zoo.recipe, im2im_zoo.recipe.load; " + "; ".join(
        f"assert callable(im2im_zoo.{name}), {name!r}" for name in NAMES
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fly'"):
        im2im_zoo.fly  # noqa: B018


@pytest.mark.parametrize("name", ["plan_prediction", "predict", "predict_array", "validate_package"])
def test_earlier_names_work_and_name_their_successor(name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"im2im_zoo.{name} is deprecated; use im2im_zoo"):
        assert callable(getattr(im2im_zoo, name))


@pytest.mark.parametrize(
    "module",
    [
        "core.sizes",
        "images.memory",
        "runtime.execute.executors.in_process",
        "runtime.execute.executors.process_pool",
        "runtime.predictor",
        "runtime.settings",
        "workflows.models",
        "workflows.training",
    ],
)
def test_the_examples_of_docstrings_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = importlib.import_module(f"im2im_zoo.{module}")
    result = doctest.testmod(found, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted
    assert not result.failed
