"""Packages with Keras and TensorFlow weights, where these libraries are installed: they are no part of the usual environment."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from packages_for_tests import build_package
from torch import nn

from im2im_zoo.package import open_package
from im2im_zoo.runtime import open_network, predict_array

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
tensorflow = pytest.importorskip("tensorflow", reason="tensorflow is not installed")
keras = pytest.importorskip("keras")

AXES = ("batch", "y", "x", "channel")
# Two convolutions of 3 at half the resolution and one at the full one, and a window of 2.
REACH = 8


@pytest.fixture(scope="module")
def network() -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    image = keras.Input((None, None, 1))
    wide = layers.Conv2D(4, 3, padding="same", activation="relu")
    narrow = layers.Conv2D(4, 3, padding="same", activation="relu")
    inner = layers.UpSampling2D(2)(narrow(layers.MaxPooling2D(2)(wide(image))))
    return keras.Model(image, layers.Conv2D(1, 3, padding="same")(inner))


def hdf5(network: Any, folder: Path) -> dict[str, Any]:
    network.save(folder / "weights.h5")
    return {
        "keras_hdf5": {"source": "weights.h5", "tensorflow_version": tensorflow.__version__.split("-")[0]}
    }


def v3(network: Any, folder: Path) -> dict[str, Any]:
    network.save(folder / "weights.keras")
    backend = ["tensorflow", tensorflow.__version__.split("-")[0]]
    return {"keras_v3": {"source": "weights.keras", "keras_version": keras.__version__, "backend": backend}}


def saved_model(network: Any, folder: Path) -> dict[str, Any]:
    import shutil

    network.export(folder / "saved", verbose=False)
    shutil.make_archive(str(folder / "weights"), "zip", folder / "saved")
    version = tensorflow.__version__.split("-")[0]
    return {"tensorflow_saved_model_bundle": {"source": "weights.zip", "tensorflow_version": version}}


@pytest.mark.parametrize("save", [hdf5, v3, saved_model])
@pytest.mark.filterwarnings("ignore")
def test_tiles_give_what_the_library_itself_gives_of_the_whole_image(
    network: Any, save: Callable[[Any, Path], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_package(tmp_path / "package", nn.Identity(), axes=AXES, minimum=24, step=2, halo=REACH)
    described = yaml.safe_load((root / "rdf.yaml").read_text())
    described["weights"] = save(network, root)
    (root / "rdf.yaml").write_text(yaml.safe_dump(described))
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(0).standard_normal((150, 118), dtype=np.float32)
    expected = np.asarray(network(values[None, ..., None]))[0, ..., 0]
    with open_package(root) as package:
        engine = open_network(package, allow_code=True).engine
        image = xr.DataArray(values, dims=("y", "x"))
        found = predict_array(package, image, engine=engine, tile={"y": 48, "x": 40}, halo=REACH)
    np.testing.assert_allclose(found.squeeze().to_numpy(), expected, atol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["package"]
