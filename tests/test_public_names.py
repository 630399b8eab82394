"""The public names are what people write code against: a change here is a change for them."""

import subprocess
import sys

import pytest

import im2im_zoo

NAMES = [
    "Framework",
    "Recipe",
    "create_image",
    "evaluate",
    "export_package",
    "export_run",
    "load_framework",
    "load_recipe",
    "open_image",
    "open_package",
    "open_run",
    "plan_prediction",
    "predict",
    "predict_array",
    "train",
    "validate_package",
    "write_image",
]


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
