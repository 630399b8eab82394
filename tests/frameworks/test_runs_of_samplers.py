"""Runs of Diffusion and the Probabilistic U-Net: resuming, 16 bit, averaged weights, several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensors_for_tests import differing

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, load_recipe
from im2im_zoo.samples import write_samples
from im2im_zoo.training.run import open_run
from im2im_zoo.training.train import train

NAMES = ("labelfree_2d_diffusion", "segmentation_2d_probabilistic")
SMALL: dict[str, list[tuple[str, object]]] = {
    NAMES[0]: [("network.kwargs.features", [4, 8]), ("network.kwargs.steps", 1)],
    NAMES[1]: [("network.kwargs.features", 2), ("network.kwargs.samples", 2)],
}
AVERAGED = {"callable": "pytorch_lightning.callbacks.EMAWeightAveraging", "kwargs": {"decay": 0.5}}


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def images(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_samples(name, tmp_path_factory.mktemp(name) / "images")


def tiny(name: str, images: Path, **overrides: object) -> Recipe:
    """The recipe, so small that training takes a second; `__` in keywords stands for a dot."""
    changes: list[tuple[str, object]] = [
        *SMALL[name],
        ("data.path", str(images)),
        ("data.patch_size", [32, 32]),
        ("data.patches_per_image", 6),
        ("data.batch_size", 3),
        ("trainer.max_epochs", 2),
        ("trainer.accelerator", "cpu"),
        ("monitor", "val_loss"),
        ("monitor_mode", "min"),
    ]
    return load_recipe(name, [*changes, *((k.replace("__", "."), v) for k, v in overrides.items())])


def test_a_resumed_run_in_16_bit_ends_as_an_unbroken_one(name: str, images: Path, tmp_path: Path) -> None:
    averaged = name == NAMES[0]  # the callback knows nothing of the framework
    more: dict[str, object] = {"trainer__precision": "bf16-mixed"}
    if averaged:
        more["trainer__callbacks"] = [AVERAGED]
    unbroken = train(tiny(name, images, **more), tmp_path / "unbroken")
    train(tiny(name, images, trainer__max_epochs=1, **more), tmp_path / "resumed")
    resumed = train(tiny(name, images, **more), tmp_path / "resumed", resume=True)
    one, other = (torch.load(r.checkpoint("last"), weights_only=True) for r in (unbroken, resumed))
    assert ("current_model_state" in one) == averaged
    assert differing(one["state_dict"], other["state_dict"]) == []


@pytest.mark.slow
def test_two_processes_train_one_run(name: str, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(tiny(name, images, trainer__devices=2, trainer__strategy="ddp")))
    command = [sys.executable, "-m", "im2im_zoo", "train", str(file), "--output", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    assert [row["step"] for row in open_run(tmp_path / "run").metrics] == [1, 2]
