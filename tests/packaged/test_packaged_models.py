"""What `packaged_models/` holds is sound, small, made from the recipe of its name, and does what its README says."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml

from im2im_zoo.core.resources import packaged_models
from im2im_zoo.evaluation import evaluate
from im2im_zoo.images import open_image
from im2im_zoo.package import open_package
from im2im_zoo.package.hashes import check_hashes
from im2im_zoo.packaging import validate_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.runtime import open_network, predict_array
from im2im_zoo.samples import write_samples

NAMES = sorted(folder.name for folder in packaged_models().iterdir() if folder.is_dir())


def test_there_is_one() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_it_is_sound_and_small(name: str) -> None:
    report = validate_package(name)
    assert report.sound, [str(f) for f in report.findings]
    with open_package(name) as package:
        assert not check_hashes(package)
        assert {"onnx", "torchscript"} <= set(package.weights)
        assert sum(f.stat().st_size for f in package.root.rglob("*") if f.is_file()) < 2_500_000


@pytest.mark.parametrize("name", NAMES)
def test_it_was_made_from_the_recipe_of_its_name(name: str) -> None:
    with open_package(name) as package:
        attached = load_recipe(package.root / "recipe.yaml")
    recipe = load_recipe(name)
    for section in ("framework", "network", "input", "target", "output", "trainer", "monitor"):
        assert getattr(attached, section) == getattr(recipe, section), f"{section}: make packaged_models"


def test_it_does_on_the_held_out_image_what_its_rdf_says(tmp_path: Path) -> None:
    images = write_samples("nuclei_2d", tmp_path / "images")
    image = open_image(next((images / "val" / "images").iterdir()))
    target = open_image(next((images / "val" / "targets").iterdir()))
    with open_package("nuclei_2d") as package:
        engine = open_network(package, in_process=True).engine
        found = evaluate(predict_array(package, image, engine=engine), target, "semantic").metrics["dice"]
        said = yaml.safe_load((package.root / "rdf.yaml").read_text())["config"]["im2im_zoo"]["figures"][
            "dice"
        ]
    assert found == pytest.approx(said, abs=2e-4)
    assert found > 0.93
    assert np.isfinite(found)


def test_the_command_that_rebuilds_it_names_every_model(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("rebuild", repository / "packaged_models" / "rebuild.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.MODELS) == NAMES
