"""A recipe that does not say its patches trains with what suits its images, says why, and is resumed with the same."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.data.patches.advice import Choice
from im2im_zoo.data.patches.extents import ImageExtents
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe, make_recipe
from im2im_zoo.training import auto_configure
from im2im_zoo.training.auto_configure import (
    ChannelCounts,
    configure_patches,
    measure_saved_bytes,
    select_settings,
)
from im2im_zoo.training.build import build_framework
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]
UNSAID = {"data__patch_size": None, "data__batch_size": None}
ONE = ChannelCounts(1, 1)


@pytest.fixture
def shortest(repository: Path, nuclei_folder: Path) -> Callable[..., Recipe]:
    """The recipe of docs/training.md, with a small network, on the sample images."""
    text = (repository / "docs" / "training.md").read_text(encoding="utf-8")
    found = re.search(r"## The shortest recipe\n\n```yaml\n(.*?)```", text, re.DOTALL)
    assert found
    content = yaml.safe_load(found.group(1))
    content["data"] = {"path": str(nuclei_folder), "split": "folders", "patches_per_image": 4}
    content["network"]["kwargs"]["features"] = [4, 4, 8, 8, 8, 4]

    def make(epochs: int) -> Recipe:
        return make_recipe(content | {"trainer": {"max_epochs": epochs, "accelerator": "cpu"}}, "docs")

    return make


def test_the_shortest_recipe_trains_says_what_was_chosen_and_is_resumed_with_it(
    shortest: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Choice] = []
    run = train(shortest(1), tmp_path / "run", explain=told.append)
    assert [choice.key for choice in told] == ["data.patch_size", "data.batch_size", "data.workers"]
    assert run.recipe.data.patch_size == (128, 128)
    assert run.recipe.data.batch_size == 8
    assert run.provenance["chosen"]["data.patch_size"] == f"[128, 128]: {told[0].reason}"
    monkeypatch.setattr(
        auto_configure, "find_memory_limit", lambda *_, **__: 10**6
    )  # on a smaller machine others would be chosen
    assert configure_patches(shortest(2)).recipe.data.patch != (128, 128)
    resumed = train(shortest(2), tmp_path / "run", resume=True)
    assert resumed.recipe.data == run.recipe.data
    assert resumed.provenance["chosen"] == run.provenance["chosen"]
    assert len(resumed.metrics) == 2


def test_what_a_recipe_says_is_not_chosen(tiny: Tiny) -> None:
    assert configure_patches(tiny()).choices == ()
    half = configure_patches(tiny(data__batch_size=None))
    assert [choice.key for choice in half.choices] == ["data.batch_size"]
    assert half.recipe.data.patch == (32, 32)
    other = configure_patches(tiny(data__patch_size=None))
    assert [choice.key for choice in other.choices] == ["data.patch_size"]
    assert other.recipe.data.batch == 3


def test_a_choice_is_the_same_again_and_draws_no_random_number(tiny: Tiny) -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = configure_patches(tiny(**UNSAID))
    assert torch.equal(torch.rand(1), expected)
    assert configure_patches(tiny(**UNSAID)) == first


def test_a_patch_is_of_a_size_that_the_network_takes(tiny: Tiny) -> None:
    deep = {
        "callable": "monai.networks.nets.UNet",
        "kwargs": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "channels": [2] * 7,
            "strides": [2] * 6,
        },
    }
    [patch] = select_settings(tiny(data__patch_size=None, network=deep), ImageExtents((500, 100)), ONE)
    assert patch.value == [192, 64]
    assert "multiples of 64" in patch.reason
    other = tiny(data__patch_size=None, network__kwargs__in_channels=3)
    with pytest.raises(TrainingError, match=r"accepts none of the patches .*of 1 channel.*data\.patch_size"):
        select_settings(other, ImageExtents((500, 500)), ONE)


def test_less_memory_makes_smaller_batches_then_smaller_patches(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(**UNSAID)
    sizes = []
    for memory in (10**10, 3 * 10**7, 6 * 10**6):
        monkeypatch.setattr(auto_configure, "find_memory_limit", lambda *_, memory=memory, **__: memory)
        patch, batch = select_settings(recipe, ImageExtents((500, 500)), ONE)
        sizes.append((patch.value, batch.value))
    assert sizes[0] == ([128, 128], 8)
    assert sizes[1][0] == [128, 128]
    assert 1 <= sizes[1][1] < 8
    assert sizes[2][0] < [128, 128]
    assert sizes[2][1] == 1
    assert "reduced so that a step fits the memory" in patch.reason


def test_what_a_step_keeps_is_counted(tiny: Tiny) -> None:
    one, four = (measure_saved_bytes(build_framework(tiny()), ONE, size) for size in ((32, 32), (64, 64)))
    assert one
    assert four
    # Twenty maps or so of 4 to 8 channels, most of them smaller than the patch.
    assert 4 * 32 * 32 * 4 < one < 100 * 8 * 32 * 32 * 4
    assert four == pytest.approx(4 * one, rel=0.05)


@pytest.mark.parametrize("name", ["nuclei_instances_2d", "denoising_n2v_2d", "synthesis_2d"])
def test_methods_of_other_kinds_are_measured_too(name: str) -> None:
    recipe = load_recipe(name, [("data.patch_size", None), ("data.batch_size", None)])
    patch, batch = select_settings(recipe, ImageExtents((96, 96)), ONE)
    assert patch.value == [96, 96]
    assert "each needs about" in batch.reason
