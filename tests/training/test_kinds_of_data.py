"""Training with cost maps, unpaired images, deep supervision, a predicted variance and augmentation on the device."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml
from tensors_for_tests import differing

from im2im_zoo.core.errors import TrainingError
from im2im_zoo.recipe import Recipe
from im2im_zoo.training.run import TrainingRun, open_run
from im2im_zoo.training.train import train
from im2im_zoo.workflows.export_run import export_run

Tiny = Callable[..., Recipe]
SQUARES = {"callable": "torch.nn.MSELoss", "kwargs": {"reduction": "none"}}
NOISE = {"callable": "monai.transforms.RandGaussianNoised", "kwargs": {"prob": 0.5, "keys": ["input"]}}
ROTATE = {"callable": "monai.transforms.RandAffined", "kwargs": {"prob": 0.5, "rotate_range": [0.5]}}


def weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run.checkpoint("last"), weights_only=True)["state_dict"]
    return state


def resumes_exactly(make: Callable[[int], Recipe], folder: Path) -> TrainingRun:
    """Train two epochs at once and one by one; both have to end alike."""
    unbroken = train(make(2), folder / "unbroken")
    train(make(1), folder / "resumed")
    resumed = train(make(2), folder / "resumed", resume=True)
    assert differing(weights(unbroken), weights(resumed)) == []
    return unbroken


@pytest.fixture
def costs_folder(nuclei_folder: Path, tmp_path: Path) -> Path:
    """The nuclei with cost maps that leave out the lower half of each image."""
    folder = tmp_path / "with_costs"
    shutil.copytree(nuclei_folder, folder)
    for part in ("train", "val"):
        (folder / part / "costs").mkdir()
        for file in (folder / part / "targets").iterdir():
            cost = np.ones(tifffile.imread(file).shape, np.uint8)
            cost[len(cost) // 2 :] = 0
            tifffile.imwrite(folder / part / "costs" / file.name, cost, metadata={"axes": "YX"})
    return folder


def test_what_does_not_count_does_not_change_the_weights(
    tiny: Tiny, costs_folder: Path, tmp_path: Path
) -> None:
    def run(name: str) -> dict[str, torch.Tensor]:
        recipe = tiny(
            data__path=str(costs_folder),
            data__cost="costs",
            data__augmentations=[],
            framework__kwargs__loss=SQUARES,
            trainer__max_epochs=1,
        )
        return weights(train(recipe, tmp_path / name))

    before = run("before")
    for file in (costs_folder / "train" / "targets").iterdir():
        target = tifffile.imread(file)
        target[len(target) // 2 :] = 1 - (target[len(target) // 2 :] > 0)
        tifffile.imwrite(file, target, metadata={"axes": "YX"})
    after = run("after")
    assert differing(before, after) == []
    for file in (costs_folder / "train" / "costs").iterdir():
        tifffile.imwrite(file, np.ones_like(tifffile.imread(file)), metadata={"axes": "YX"})
    counted = run("counted")
    assert before.keys() == counted.keys()
    assert differing(before, counted)


def test_a_loss_that_ignores_cost_maps_is_refused(tiny: Tiny, costs_folder: Path, tmp_path: Path) -> None:
    recipe = tiny(data__path=str(costs_folder), data__cost="costs")
    with pytest.raises(TrainingError, match=r"framework\.kwargs\.loss: DiceCELoss cannot weight voxels"):
        train(recipe, tmp_path / "run")


def test_unpaired_training_resumes_exactly_and_says_what_trained(
    tiny: Tiny, nuclei_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "unpaired"
    shutil.copytree(nuclei_folder, folder)
    [target] = (folder / "train" / "targets").iterdir()
    whole = tifffile.imread(target)
    for number, part in enumerate((whole[:64], whole[64:128])):
        tifffile.imwrite(target.with_name(f"other{number}.tif"), part, metadata={"axes": "YX"})
    target.unlink()

    def make(epochs: int) -> Recipe:
        return tiny(
            data__path=str(folder),
            data__pairing="unpaired",
            data__augmentations=[ROTATE],
            data__device_augmentations=[NOISE],
            framework={"callable": "im2im_zoo.frameworks.cyclegan.CycleGAN"},
            monitor="val_loss",
            monitor_mode="min",
            trainer__max_epochs=epochs,
        )

    run = resumes_exactly(make, tmp_path)
    data = run.provenance["data"]
    assert data["train_targets"] == ["other0", "other1"]
    assert len(data["train"]) == 1
    assert len(data["validation"]) == 1
    # Of two optimizers each step counts.
    assert run.metrics[0]["step"] == 2 * (6 * 2 / 3)


def test_augmentation_on_the_device_changes_training_alone_and_resumes_exactly(
    tiny: Tiny, tmp_path: Path
) -> None:
    def make(epochs: int, **more: Any) -> Recipe:
        return tiny(data__device_augmentations=[NOISE, ROTATE], trainer__max_epochs=epochs, **more)

    run = resumes_exactly(make, tmp_path)
    still = {"framework__kwargs__optimizer__kwargs__lr": 0.0, "network__kwargs__norm": "instance"}
    augmented = train(make(1, **still), tmp_path / "augmented")
    plain = train(tiny(trainer__max_epochs=1, **still), tmp_path / "plain")
    assert augmented.metrics[0]["val_loss"] == plain.metrics[0]["val_loss"]
    assert augmented.metrics[0]["train_loss"] != plain.metrics[0]["train_loss"]
    assert run.provenance["state"] == "complete"


def test_a_deeply_supervised_network_trains(tiny: Tiny, tmp_path: Path) -> None:
    dynunet = {
        "callable": "monai.networks.nets.DynUNet",
        "kwargs": {
            "spatial_dims": 2,
            "in_channels": 1,
            "out_channels": 1,
            "kernel_size": [3, 3, 3, 3],
            "strides": [1, 2, 2, 2],
            "upsample_kernel_size": [2, 2, 2],
            "filters": [4, 4, 8, 8],
            "norm_name": "batch",
            "deep_supervision": True,
            "deep_supr_num": 2,
        },
    }
    run = train(tiny(network=dynunet, trainer__max_epochs=1), tmp_path / "run")
    assert run.metrics[0]["train_loss"] > 0


@pytest.fixture
def with_variance(tiny: Tiny) -> Callable[..., Recipe]:
    def make(**more: object) -> Recipe:
        fields: dict[str, Any] = {
            "framework__kwargs": {"heteroscedastic": True},
            "network__kwargs__out_channels": 2,
            "network__kwargs__dropout": 0.0,
            "output__task": "regression",
            "output__postprocessing": [],
            "trainer__max_epochs": 1,
            "monitor": "val_loss",
            "monitor_mode": "min",
        }
        return tiny(**(fields | more))

    return make


def test_a_predicted_variance_is_packaged_as_a_second_channel(
    with_variance: Callable[..., Recipe], tmp_path: Path
) -> None:
    run = train(with_variance(), tmp_path / "run")
    export_run(open_run(run.path), tmp_path / "package", weights=("torchscript", "onnx"))
    rdf = yaml.safe_load((tmp_path / "package" / "rdf.yaml").read_text())
    assert rdf["outputs"][0]["axes"][1]["channel_names"] == ["nucleus", "nucleus_variance"]
    assert {"torchscript", "onnx"} <= set(rdf["weights"])
    output = np.load(tmp_path / "package" / "test_output.npy")
    assert output.shape[1] == 2
    assert output[:, 1].min() > 0
    assert rdf["config"]["im2im_zoo"]["figures"]["pearson"] is not None


def test_a_network_without_a_variance_is_refused_with_the_number_of_channels(
    with_variance: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(
        TrainingError, match=r"\[1, 1, 32, 32\], but the target needs \[1, 2, 32, 32\]: set .* to 2"
    ):
        train(with_variance(network__kwargs__out_channels=1), tmp_path / "run")
