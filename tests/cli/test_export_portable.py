"""`im2im-zoo export` of a run with centre normalisation: as it is, portable, and refused where that costs too much."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml

from im2im_zoo.recipe.load import make_recipe
from im2im_zoo.training.run import open_run
from im2im_zoo.training.train import train

Cli = Callable[..., Any]
CENTRE = {
    "id": "custom",
    "callable": "centre_normalisation",
    "source": "im2im_zoo/centre_normalisation.py",
    "kwargs": {"axes": "czyx", "chunk_size": 8},
}


def trained(
    folder: Path, volume: np.ndarray, held_out: np.ndarray, before: Mapping[str, Any] = CENTRE
) -> Path:
    """A run that was trained on a volume, to give its square root, and is validated on another of its mirror image."""
    mirrored = volume[:, :, ::-1]
    for part, image, target in (("train", volume, volume), ("val", held_out, mirrored)):
        for kind, values in (("images", image), ("targets", np.sqrt(target).astype(np.float32))):
            (folder / part / kind).mkdir(parents=True)
            tifffile.imwrite(folder / part / kind / "a.tif", values, metadata={"axes": "ZYX"})
    recipe = make_recipe(
        {
            "name": "Roots of volumes",
            "framework": {
                "callable": "im2im_zoo.frameworks.fcn.FCN",
                "kwargs": {
                    "loss": {"callable": "torch.nn.MSELoss"},
                    "optimizer": {"callable": "torch.optim.Adam", "call": False, "kwargs": {"lr": 0.02}},
                },
            },
            "network": {
                "callable": "torch.nn.Conv3d",
                "kwargs": {"in_channels": 1, "out_channels": 1, "kernel_size": 3, "padding": 1},
            },
            "data": {
                "path": str(folder),
                "split": "folders",
                "patch_size": [16, 32, 32],
                "patches_per_image": 16,
                "batch_size": 4,
            },
            "input": {"axes": ["batch", "channel", "z", "y", "x"], "preprocessing": [before]},
            "target": {
                "preprocessing": [
                    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "z", "y", "x"]}}
                ]
            },
            "output": {"task": "regression"},
            "trainer": {"max_epochs": 24, "accelerator": "cpu"},
            "package": {"authors": [{"name": "Somebody"}]},
        },
        "a test",
    )
    return train(recipe, folder / "run").path


@pytest.fixture(scope="module")
def volume(nuclei_3d: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return nuclei_3d[0]


@pytest.fixture(scope="module")
def alike(volume: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("alike"), volume, volume[:, :, ::-1])


def test_a_run_with_a_custom_operation_of_ours_is_exported_and_run_without_consent(
    cli: Cli, alike: Path, volume: np.ndarray, tmp_path: Path
) -> None:
    done = cli("export", alike, "--output", tmp_path / "p", "--weights", "onnx")
    assert done.code == 0, done.err
    assert (tmp_path / "p" / "centre_normalisation.py").is_file()
    tifffile.imwrite(tmp_path / "image.tif", volume, metadata={"axes": "ZYX"})
    done = cli("predict", tmp_path / "p", tmp_path / "image.tif", tmp_path / "result.tif", "--memory", "4GB")
    assert done.code == 0, done.err
    correlation = np.corrcoef(tifffile.imread(tmp_path / "result.tif").ravel(), np.sqrt(volume).ravel())
    assert correlation[0, 1] > 0.9
    done = cli("show", tmp_path / "p")
    assert "centre_normalisation" in done.out


def test_a_portable_package_says_what_it_cost(cli: Cli, alike: Path, tmp_path: Path) -> None:
    done = cli("export", alike, "--output", tmp_path / "p", "--portable", "--weights", "onnx")
    assert done.code == 0, done.err
    rdf = yaml.safe_load((tmp_path / "p" / "rdf.yaml").read_text(encoding="utf-8"))
    assert [o["id"] for o in rdf["inputs"][0]["preprocessing"]] == ["ensure_dtype"]
    moved = rdf["config"]["im2im_zoo"]["in_graph"]["before"]
    assert [o["id"] for o in moved] == ["fixed_zero_mean_unit_variance"]
    made = rdf["config"]["im2im_zoo"]["portable"]
    assert made["difference"] < 1e-3
    assert made["figures"]["pearson"] == pytest.approx(made["original_figures"]["pearson"], rel=1e-3)
    assert made["figures"] == rdf["config"]["im2im_zoo"]["figures"]


def test_a_portable_package_that_is_much_worse_is_refused_with_the_figures(
    cli: Cli, volume: np.ndarray, tmp_path: Path
) -> None:
    run = trained(tmp_path / "data", volume, (volume[:, :, ::-1] // 5 + 40).astype(np.uint16))
    assert open_run(run).provenance["state"] == "complete"
    done = cli("export", run, "--output", tmp_path / "p", "--portable", "--weights", "onnx")
    assert done.code == 1
    assert "would lose too much on the held-out images" in done.err
    assert "as trained" in done.err
    assert not (tmp_path / "p").exists()


def test_nothing_to_make_portable_is_said(cli: Cli, volume: np.ndarray, tmp_path: Path) -> None:
    scale = {"id": "scale_linear", "kwargs": {"gain": 0.001}}
    run = trained(tmp_path / "data", volume, volume[:, :, ::-1], scale)
    done = cli("export", run, "--output", tmp_path / "p", "--portable", "--weights", "torchscript")
    assert done.code == 0, done.err
    assert "nothing to make portable" in done.out + done.err
