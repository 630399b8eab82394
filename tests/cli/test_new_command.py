"""`im2im-zoo new` writes a recipe that data check accepts, with nothing of the sample recipes in it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from commands import command

from im2im_zoo.core.errors import DataError
from im2im_zoo.data.check.examine import examine
from im2im_zoo.recipe.load import copied_text, load_recipe, make_recipe, parse_value, recipe_names
from im2im_zoo.training.build import check_recipe
from im2im_zoo.workflows.metadata import without_sample_metadata
from im2im_zoo.workflows.new_recipe.recipe_text import Task, write_recipe
from im2im_zoo.workflows.new_recipe.survey import survey_images


@pytest.fixture
def pairs(tmp_path: Path, nuclei_2d: Any) -> Path:
    """Four pairs of nuclei and labels, named as by Cellpose."""
    image, labels = nuclei_2d
    folder = tmp_path / "my cells"
    folder.mkdir()
    for number in range(4):
        part = np.s_[number * 96 : number * 96 + 96, 40:200]
        tifffile.imwrite(folder / f"a{number}.tif", image[part])
        tifffile.imwrite(folder / f"a{number}_cp_masks.tif", labels[part])
    return folder


@pytest.mark.parametrize("task", ["objects", "segment", "denoise"])
def test_a_recipe_passes_the_check_of_data_and_components(task: Task, pairs: Path) -> None:
    made = write_recipe(survey_images(pairs, paired=task != "denoise"), task)
    check_recipe(made.recipe)
    assert examine(made.recipe).is_sound
    assert "im2im_zoo developers" not in made.text
    assert made.recipe.package.authors == ()


@pytest.mark.parametrize("task", ["restore", "predict-stain"])
def test_masks_are_no_targets_of_restoration(task: Task, pairs: Path) -> None:
    with pytest.raises(DataError, match="choose --task objects or segment"):
        write_recipe(survey_images(pairs), task)


def test_the_command_writes_a_recipe_and_names_the_next_ones(pairs: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.yaml"
    arguments = ("new", pairs, "--task", "objects", "--output", output, "--author", "Ada", "--json")
    said = json.loads(command(*arguments).stdout)
    assert said["target"] == "label image"
    assert [line.split()[1] for line in said["next"]] == ["train", "export", "predict"]
    assert load_recipe(output).package.authors[0].name == "Ada"
    again = command(*arguments, check=False)
    assert again.returncode == 1
    assert "already exists" in again.stderr


@pytest.mark.parametrize("name", ["nuclei_2d", "denoising_n2v_2d"])
def test_a_copied_recipe_claims_nothing(name: str) -> None:
    text = copied_text(recipe_names()[name].read_text())
    package = make_recipe(parse_value(text), name).package
    assert not any(
        (package.authors, package.cite, package.tags, package.documentation, package.training_data)
    )


def test_metadata_of_a_sample_recipe_stay_with_its_images() -> None:
    recipe = load_recipe("nuclei_2d")
    assert without_sample_metadata(recipe, ["nuclei_2d"]) == (recipe, ())
    other, messages = without_sample_metadata(recipe, ["mine", "yours"])
    assert not any((other.package.authors, other.package.cite, other.package.training_data))
    assert "the authors" in messages[0]
