"""A recipe with Python files of its own beside it, through all commands: consent, copies, and what the package holds."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from im2im_zoo.images import open_image
from im2im_zoo.package import open_package
from im2im_zoo.recipe.load import find_recipe

if TYPE_CHECKING:
    from conftest import Cli

FEW = ("--data.patch_size=[64, 64]", "--data.patches_per_image=8", "--data.batch_size=4")
NORM = '''"""Intensities of an image, whole, as fractions of its largest."""

import numpy as np


def of_the_largest(floor=1.0):
    return lambda image: (image / max(float(image.max()), floor)).astype(np.float32)
'''
NETWORK = '''"""A network of two convolutions."""

from torch import nn


class TwoConvolutions(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, image):
        return self.layers(image)
'''


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nuclei_2d` with a normalisation and a network of its own, in a folder with nothing else."""
    folder = tmp_path_factory.mktemp("own_recipe")
    content = yaml.safe_load(find_recipe("nuclei_2d").read_text(encoding="utf-8"))
    content["input"]["preprocessing"] = [
        {"id": "custom", "callable": "of_the_largest", "source": "my_norm.py", "kwargs": {"floor": 2.0}},
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
    ]
    content["network"] = {"callable": "my_network_of_two.TwoConvolutions", "kwargs": {"width": 5}}
    content["trainer"] |= {"max_epochs": 1}
    (folder / "my_norm.py").write_text(NORM, encoding="utf-8")
    (folder / "my_network_of_two.py").write_text(NETWORK, encoding="utf-8")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder / "recipe.yaml"


def test_a_recipe_with_files_of_its_own_goes_all_the_way(
    cli: "Cli", recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))  # what training adds is gone after the test
    images, run, package = tmp_path / "images", tmp_path / "run", tmp_path / "package"
    assert cli("samples", "nuclei_2d", "--output", images).code == 0
    train = ("train", recipe, f"--data.path={images}", *FEW, "--output", run)
    allowed = ("--allow-code", "custom", "--allow-code", "my_network_of_two")

    without = cli(*train, *allowed[2:])
    assert without.code == 1
    assert "input.preprocessing.0" in without.err
    assert "my_norm.py is Python code that is not im2im_zoo's" in without.err
    assert "--allow-code custom" in without.err
    refused = cli(*train, *allowed[:2])
    assert refused.code == 1
    assert "--allow-code my_network_of_two" in refused.err
    assert not run.exists()

    done = cli(*train, *allowed)
    assert done.code == 0, done.err
    assert (run / "my_norm.py").read_text(encoding="utf-8") == NORM
    assert cli("export", run, "--output", package, *allowed[2:]).code == 1
    exported = cli("export", run, "--output", package, *allowed)
    assert exported.code == 0, exported.err

    with open_package(package) as opened:
        assert set(opened.weights) == {"onnx", "torchscript", "pytorch_state_dict"}
        architecture = opened.raw["weights"]["pytorch_state_dict"]["architecture"]
        assert (architecture["source"], architecture["kwargs"]) == ("my_network_of_two.py", {"width": 5})
    assert cli("validate", package, "--allow-code", "--no-core").code == 0
    image, output = next((images / "val" / "images").iterdir()), tmp_path / "out.ome.zarr"
    without = cli("predict", package, image, output)
    assert without.code == 1
    assert "--allow-code" in without.err
    assert cli("predict", package, image, output, "--allow-code").code == 0
    assert np.isfinite(open_image(output).to_numpy()).all()


def test_a_run_is_not_resumed_with_another_version_of_a_file_of_its_own(
    cli: "Cli", recipe: Path, tmp_path: Path
) -> None:
    images, run = tmp_path / "images", tmp_path / "run"
    cli("samples", "nuclei_2d", "--output", images)
    train = ("train", recipe, f"--data.path={images}", *FEW, "--output", run, "--allow-code", "custom")
    network = "--network={callable: monai.networks.nets.BasicUNet, kwargs: {spatial_dims: 2, out_channels: 1, norm: batch, features: [4, 4, 8, 8, 8, 4]}}"
    assert cli(*train, network).code == 0
    (recipe.parent / "my_norm.py").write_text(NORM + "\n# changed\n", encoding="utf-8")
    resumed = cli(*train, network, "--resume", "--trainer.max_epochs=2")
    (recipe.parent / "my_norm.py").write_text(NORM, encoding="utf-8")
    assert resumed.code == 1
    assert "differs from the version that" in resumed.err
