"""Hard patches: where the loss was high, more are drawn, whichever process reads them; without them nothing changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensors_for_tests import differing

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.data.cache.rotating_cache import ImageRotation
from im2im_zoo.data.datamodule import ImagePairs
from im2im_zoo.data.patches.dataset import PATCH_POSITIONS
from im2im_zoo.data.patches.loss_map import LossMap
from im2im_zoo.recipe import Recipe

SHAPES = [(64, 96), (40, 33)]  # of 2 x 3 cells and of 1 x 1
EVERYTHING = ImageRotation(2, 1, 1, 0)


def places(share: float = 0.5, rounds: ImageRotation = EVERYTHING) -> LossMap:
    return LossMap(SHAPES, (32, 32), share, seed=0, rotation=rounds)


def test_a_cell_is_drawn_in_proportion_to_its_loss_and_its_voxels_alike() -> None:
    hard = places()
    hard.losses = np.array([0, 0, 0, 3, 0, 0, 1.0])
    drawn = hard.sample_centers(1, 20_000)
    assert len(drawn) == pytest.approx(10_000, rel=0.03)
    first = np.array([middle for number, middle in drawn.values() if number == 0])
    assert len(first) / len(drawn) == pytest.approx(0.75, rel=0.03)
    assert (first.min(0) == (32, 0)).all()
    assert (first.max(0) == (63, 31)).all()
    np.testing.assert_allclose(first.mean(0), (47.5, 15.5), atol=0.5)


def test_a_patch_counts_for_the_cell_that_its_middle_is_in() -> None:
    hard = places()
    at = np.array([[0, 0, 0], [0, 32, 64], [0, 31, 63], [1, 8, 1], [0, 15, 16], [0, 0, 0]])
    hard.update(*hard.sum_by_cell(at, np.array([1, 2, 4, 8, 6, np.nan])))
    np.testing.assert_array_equal(hard.losses, [1, 6, np.nan, np.nan, np.nan, 3, 8])
    hard.update(*hard.sum_by_cell(at[:1], np.array([5.0])))
    np.testing.assert_array_equal(hard.losses, [3, 6, np.nan, np.nan, np.nan, 3, 8])


def test_where_no_patch_was_is_as_likely_as_the_mean_and_losses_below_0_count_from_the_lowest() -> None:
    hard = places(share=1)
    hard.losses = np.array([-3, -1, np.nan, -3, -3, -3, -3.0])
    cells = [
        middle[1] // 32
        for number, middle in hard.sample_centers(0, 6000).values()
        if number == 0 and middle[0] < 32
    ]
    counts = np.bincount(cells, minlength=3)
    known = np.array([0, 2, 1 / 3])
    np.testing.assert_allclose(counts / 6000, known / known.sum(), atol=0.03)


def test_only_images_that_are_at_hand_are_drawn() -> None:
    rounds = ImageRotation(2, 0.5, 1, 0)
    hard = places(share=1, rounds=rounds)
    hard.losses = np.ones(7)
    for epoch in range(4):
        assert {number for number, _ in hard.sample_centers(epoch, 50).values()} == set(rounds.members(epoch))


def test_nothing_is_drawn_hard_before_anything_is_known_or_of_no_loss() -> None:
    hard = places(share=1)
    assert hard.sample_centers(0, 100) == {}
    hard.losses = np.zeros(7)
    assert hard.sample_centers(1, 100) == {}


@pytest.fixture
def loaded(
    tmp_path: Path, write_pairs: Callable[..., Path], recipe_for: Callable[..., Recipe]
) -> Callable[..., ImagePairs]:
    folder = write_pairs(tmp_path / "set", "abcd")

    def make(**options: Any) -> ImagePairs:
        data = ImagePairs(recipe_for(folder, patches_per_image=12, batch_size=5, **options))
        data.setup("fit")
        return data

    return make


def epoch(data: ImagePairs, number: int) -> dict[str, torch.Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    batches = list(loader)
    return {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}


def test_patches_are_the_same_until_losses_are_known_and_for_any_number_of_workers(
    loaded: Callable[..., ImagePairs],
) -> None:
    plain, hard, several = loaded(), loaded(hard_patches=0.9), loaded(hard_patches=0.9, workers=2)
    usual = epoch(plain, 1)
    assert usual.keys() == {"input", "target"}
    found = epoch(hard, 1)
    assert torch.equal(found["input"], usual["input"])
    losses = torch.arange(len(found[PATCH_POSITIONS]), dtype=torch.float64).numpy()
    for data in (hard, several):
        assert data.loss_map is not None
        data.loss_map.update(*data.loss_map.sum_by_cell(found[PATCH_POSITIONS].numpy(), losses))
    one, other = epoch(hard, 2), epoch(several, 2)
    assert differing(one, other) == []
    same = (one["input"] == epoch(plain, 2)["input"]).flatten(1).all(1).float().mean()
    assert 0 < same < 0.4  # a tenth is drawn as ever; of the rest, some by chance
    for data in (plain, hard, several):
        data.teardown("fit")


def test_what_is_carried_by_a_patch_says_where_it_is(loaded: Callable[..., ImagePairs]) -> None:
    data = loaded(hard_patches=0.5)
    patches = data.train_dataloader().dataset
    number, y, x = patches[0, 30][PATCH_POSITIONS].tolist()
    whole = np.load(patches._images[number].input)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(patches[0, 30]["input"], whole[:, y : y + 32, x : x + 48])
    data.teardown("fit")


def test_hard_patches_do_not_go_with_other_aims_or_without_pairs(recipe_for: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match="foreground_patches and hard_patches cannot be combined"):
        recipe_for(Path("x"), hard_patches=0.5, foreground_patches=0.5)
    with pytest.raises(RecipeError, match="hard_patches has no effect with pairing: unpaired"):
        recipe_for(Path("x"), hard_patches=0.5, pairing="unpaired")
