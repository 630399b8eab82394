"""Custom operations in front of the network, in training: on each whole image, before any patch is cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from preprocessed import preprocess

from im2im_zoo.core.errors import DataError
from im2im_zoo.data import find_pairs
from im2im_zoo.processing.custom.centre_normalisation import centre_normalisation
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, load_recipe

CENTRE = {
    "id": "custom",
    "callable": "centre_normalisation",
    "source": "im2im_zoo/centre_normalisation.py",
    "kwargs": {"axes": "czyx", "chunk_size": 8},
}
SCALE = {"id": "scale_range", "kwargs": {"axes": ["z", "y", "x"], "min_percentile": 0, "max_percentile": 100}}
Make = Callable[..., Recipe]


@pytest.fixture
def recipe(
    tmp_path: Path,
    nuclei_3d: tuple[np.ndarray, np.ndarray],
    recipe_for: Make,
    write_ome_zarr: Callable[..., Path],
) -> Callable[..., Recipe]:
    def build(*operations: dict[str, Any]) -> Recipe:
        for name in "ab":
            write_ome_zarr(tmp_path / f"{name}.zarr", np.stack(nuclei_3d), "czyx")
        return recipe_for(
            tmp_path,
            axes="zyx",
            preprocessing=operations,
            target_preprocessing=operations[:1],
            pairing="channels",
            input_channels=[0],
            target_channels=[1],
        )

    return build


def test_input_and_target_are_normalised_whole_and_statistics_follow(
    recipe: Make, tmp_path: Path, nuclei_3d: tuple[np.ndarray, np.ndarray]
) -> None:
    made = recipe(CENTRE, SCALE)
    [one] = preprocess(find_pairs(made.data, made.seed), made, tmp_path / "cache").validation
    image, target = (centre_normalisation(chunk_size=8)(a[None].astype(float)) for a in nuclei_3d)
    np.testing.assert_allclose(np.load(one.target), target, rtol=1e-5, atol=1e-6)
    expected = (image - image.min()) / (np.ptp(image) + 1e-6)
    np.testing.assert_allclose(np.load(one.input), expected, rtol=1e-5, atol=1e-6)


def test_a_recipe_with_custom_operations_is_written_and_read_again(recipe: Make, tmp_path: Path) -> None:
    made = recipe(CENTRE, SCALE)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(made))
    assert load_recipe(tmp_path / "recipe.yaml") == made


def test_code_of_others_needs_consent_and_is_cached_by_its_bytes(recipe: Make, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def mine():\n    return lambda array: array * 2.0\n")
    made = recipe({"id": "custom", "callable": "mine", "source": "mine.py", "kwargs": {}})
    pairs = find_pairs(made.data, made.seed)
    with pytest.raises(DataError, match="allow_code"):
        preprocess(pairs, made, tmp_path / "cache", root=tmp_path)
    options = {"root": tmp_path, "allow_code": ["custom"]}
    [one] = preprocess(pairs, made, tmp_path / "cache", **options).validation  # type: ignore[arg-type]
    (tmp_path / "mine.py").write_text("def mine():\n    return lambda array: array * 4.0\n")
    [other] = preprocess(pairs, made, tmp_path / "cache", **options).validation  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.load(other.input), 2 * np.load(one.input))
