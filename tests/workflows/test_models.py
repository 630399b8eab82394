"""A network in memory and a package are one kind of model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import im2im_zoo
from im2im_zoo.core.errors import PackageError
from im2im_zoo.images import open_image
from im2im_zoo.training.run import load_framework, open_run

RunOf = Callable[..., Path]


def test_a_network_in_memory_predicts_as_its_export_does(run_of: RunOf, nuclei: Path, tmp_path: Path) -> None:
    run = open_run(run_of())
    network = load_framework(run).exported_network().eval()
    image = open_image(next((nuclei / "val" / "images").iterdir()))
    settings = im2im_zoo.Settings(tile={"y": 64, "x": 64}, backend="torch")
    with im2im_zoo.open_model(network, recipe=run.recipe) as model:
        root = model.package.root
        ours = model.predict(image, tmp_path / "ours.ome.zarr", settings=settings)
    assert ours.tiles > 4
    assert not root.exists()
    exported = im2im_zoo.export_run(run, tmp_path / "package", weights=["torchscript"])
    theirs = im2im_zoo.open_model(exported.folder).predict_array(image, settings=settings)
    np.testing.assert_allclose(open_image(ours.output), theirs, atol=1e-6)


def test_a_network_without_a_recipe_and_a_package_with_one_are_refused(run_of: RunOf) -> None:
    run = open_run(run_of())
    network = load_framework(run).exported_network()
    with pytest.raises(PackageError, match="needs its recipe"):
        im2im_zoo.open_model(network)
    with pytest.raises(PackageError, match="a package has its own"):
        im2im_zoo.open_model("nuclei_2d", recipe=run.recipe)
