"""Training on hard patches: they come from where the loss was high, and a resumed run sees the same ones."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from im2im_zoo.core.errors import RecipeError
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe
from im2im_zoo.training.run import load_framework, open_run
from im2im_zoo.training.train import train

Tiny = Callable[..., Recipe]
SQUARES = {"callable": "torch.nn.MSELoss"}


@pytest.fixture
def half_hard(tmp_path: Path) -> Path:
    """Images whose targets are what they are on the left, and noise that nobody can know on the right."""
    random = np.random.default_rng(0)
    for number in range(3):
        image = random.random((64, 128), np.float32)
        target = image.copy()
        target[:, 64:] = 4 * random.random((64, 64), np.float32)
        for kind, voxels in (("images", image), ("targets", target)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(tmp_path / "set" / kind / f"{number}.tif", voxels, metadata={"axes": "YX"})
    return tmp_path / "set"


@pytest.fixture
def half_hard_recipe(tiny: Tiny, half_hard: Path) -> Tiny:
    """Makes a recipe for these images."""

    def make(**overrides: object) -> Recipe:
        return tiny(
            data__path=str(half_hard),
            data__split="random",
            data__patches_per_image=12,
            data__hard_patches=0.9,
            target__preprocessing=[],
            output__task="regression",
            output__postprocessing=[],
            framework__kwargs__loss=SQUARES,
            framework__kwargs__metrics={},
            monitor="val_loss",
            monitor_mode="min",
            **overrides,
        )

    return make


def test_more_patches_come_from_where_the_loss_was_high_and_a_resumed_run_has_the_same(
    half_hard_recipe: Tiny, tmp_path: Path
) -> None:
    states = []
    for name, parts in (("unbroken", (3,)), ("resumed", (1, 3))):
        for part in parts:
            recipe = half_hard_recipe(trainer__max_epochs=part)
            run = train(recipe, tmp_path / name, resume=part != parts[0])
        states.append(torch.load(run.checkpoint("last"), weights_only=True))
    unbroken, resumed = states
    assert all(torch.equal(v, resumed["state_dict"][k]) for k, v in unbroken["state_dict"].items())
    known = [state["ImagePairs"]["hard"] for state in states]
    torch.testing.assert_close(*known, rtol=0, atol=0, equal_nan=True)
    by_column = known[0].reshape(2, 2, 4).nanmean((0, 1))
    assert by_column[2:].min() > 2 * by_column[:2].max()


@pytest.mark.slow
def test_two_processes_train_one_run_with_one_cache_and_learn_what_is_hard_as_one_does(
    half_hard_recipe: Tiny, tmp_path: Path
) -> None:
    common = {"trainer__max_epochs": 3, "trainer__accelerator": "cpu", "network__kwargs__dropout": 0.0}
    # An epoch is one batch, so that the order of its patches, which differs, does not matter.
    alone = half_hard_recipe(**common, data__batch_size=24)
    shared = half_hard_recipe(
        **common,
        data__batch_size=12,
        data__cache=str(tmp_path / "cache"),
        trainer__devices=2,
        trainer__strategy="ddp",
    )
    (tmp_path / "recipe.yaml").write_text(dump_recipe(shared), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "im2im_zoo",
        "train",
        tmp_path / "recipe.yaml",
        "--output",
        tmp_path / "two",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    run = open_run(tmp_path / "two")
    assert run.provenance["state"] == "complete"
    assert [row["step"] for row in run.metrics] == [1, 2, 3]
    assert load_framework(run).exported_network()(torch.zeros(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 6  # of each image and target, one
    runs = train(alone, tmp_path / "one"), run
    one, two = (torch.load(run.checkpoint("last"), weights_only=True)["ImagePairs"]["hard"] for run in runs)
    assert one.isfinite().any()
    # Adam's first steps are as long for a gradient of rounding errors as for any.
    torch.testing.assert_close(two, one, rtol=0.02, atol=0, equal_nan=True)


def test_a_method_that_cannot_tell_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    method = {"callable": "im2im_zoo.frameworks.noise2void.Noise2Void"}
    recipe = tiny(data__hard_patches=0.5, data__pairing="self", framework=method, target__preprocessing=[])
    with pytest.raises(RecipeError, match=r"data\.hard_patches: Noise2Void does not report the loss"):
        train(recipe, tmp_path / "run")
