"""Numbers that a recipe leaves open are measured on the training images, and stated ones that are far off are reported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from im2im_zoo.data.check.examine import examine
from im2im_zoo.data.statistics import fill_statistics, list_far_numbers, measure_images
from im2im_zoo.images import memory_image
from im2im_zoo.recipe.load import dump_recipe, load_recipe

Make = Callable[..., Any]
OPEN = [{"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}, {"id": "fixed_zero_mean_unit_variance"}]


def stated(mean: float, std: float) -> list[dict[str, Any]]:
    return [{"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": mean, "std": std}}]


def training_values(folder: Path, recipe: Any) -> Any:
    from im2im_zoo.data import find_pairs

    pairs = find_pairs(recipe.data, recipe.seed).train
    return np.concatenate([tifffile.imread(Path(str(p.input))).ravel() for p in pairs]).astype(np.float64)


def test_open_numbers_are_those_of_the_training_images(
    tmp_path: Path, write_pairs: Make, recipe_for: Make
) -> None:
    recipe = recipe_for(write_pairs(tmp_path, "abcd"), preprocessing=OPEN)
    filled = fill_statistics(recipe)
    kwargs = filled.recipe.input.preprocessing[1].kwargs
    values = training_values(tmp_path, recipe)
    assert kwargs.mean == pytest.approx(values.mean(), rel=1e-5)
    assert kwargs.std == pytest.approx(values.std(), rel=1e-5)
    assert [n.place for n in filled.numbers] == [1]
    again = fill_statistics(recipe, run=filled.recipe)
    assert again.recipe == filled.recipe
    assert again.numbers == ()


def test_an_output_is_scaled_back_by_the_same_numbers(tmp_path: Path) -> None:
    recipe = load_recipe("denoising_n2v_2d")
    assert "e+308" not in dump_recipe(recipe)
    tifffile.imwrite(tmp_path / "a.tif", np.arange(64, dtype=np.uint16).reshape(8, 8))
    tifffile.imwrite(tmp_path / "b.tif", np.arange(64, dtype=np.uint16).reshape(8, 8)[::-1] * 2)
    data = recipe.data.model_copy(update={"path": tmp_path, "input": ".", "split": "random"})
    made = fill_statistics(recipe.model_copy(update={"data": data})).recipe
    fixed, back = made.input.preprocessing[1].kwargs, made.output.postprocessing[0].kwargs
    assert (back.gain, back.offset) == (fixed.std, fixed.mean)  # type: ignore[union-attr]


@pytest.mark.parametrize(("factor", "far"), [(1.0, 0), (3.0, 1)])
def test_stated_numbers_that_are_far_off_are_reported(
    factor: float, far: int, tmp_path: Path, write_pairs: Make, recipe_for: Make
) -> None:
    folder = write_pairs(tmp_path, "abcd")
    values = training_values(folder, recipe_for(folder))
    recipe = recipe_for(folder, preprocessing=stated(float(values.mean()), float(values.std() * factor)))
    assert len(list_far_numbers(recipe)) == far
    assert [f.code for f in examine(recipe).findings].count("far-numbers") == far


def test_a_sample_of_large_data_is_close_and_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(50, 5, (2, 600, 600)).astype(np.float32)
    image = memory_image(values, axes="cyx")
    parts = [measure_images([image, image], most_voxels=2**18) for _ in range(2)]
    assert parts[0] == parts[1]
    assert parts[0].sampled
    assert parts[0].voxels <= 2**18
    assert parts[0].mean == pytest.approx((50, 50), rel=0.01)


def test_labels_that_training_refuses_are_found_before(
    tmp_path: Path, write_pairs: Make, recipe_for: Make
) -> None:
    folder = write_pairs(tmp_path, "abc")
    path = folder / "targets" / "b.tif"
    tifffile.imwrite(path, tifffile.imread(path).astype(np.uint32) + 2**24, metadata={"axes": "YX"})
    [finding] = [f for f in examine(recipe_for(folder)).findings if f.code == "large-values"]
    assert finding.severity == "error"
    assert str(path) in finding.files[0]
