"""Run folders of small networks on real nuclei, as training leaves them, but untrained: made in no time."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import dump_recipe, load_recipe
from im2im_zoo.training.build import build_framework

CONVOLUTIONAL = {
    "callable": "monai.networks.nets.UNet",
    "kwargs": {
        "spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2], "norm": "batch",
    },
}  # fmt: skip


@pytest.fixture(scope="session")
def nuclei(nuclei_2d: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small image to train on, and one held out."""
    folder = tmp_path_factory.mktemp("samples")
    for kind, image in zip(("images", "targets"), nuclei_2d, strict=True):
        for part, crop in (("train", image[:128, :128]), ("val", image[200:350, 300:440])):
            (folder / part / kind).mkdir(parents=True)
            tifffile.imwrite(folder / part / kind / "nuclei.tif", crop, metadata={"axes": "YX"})
    return folder


@pytest.fixture
def run_of(nuclei: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a run of the recipe nuclei_2d; keyword arguments override keys, dots written as double underscores."""

    def make(**overrides: object) -> Path:
        changes = {
            "network": CONVOLUTIONAL,
            "data__patch_size": [64, 64],
            "data__path": str(nuclei),
            **overrides,
        }
        return write_run(
            load_recipe("nuclei_2d", [(k.replace("__", "."), v) for k, v in changes.items()]), tmp_path
        )

    return make


def write_run(recipe: Recipe, folder: Path) -> Path:
    """Write a run folder whose best checkpoint is the network as it is drawn."""
    torch.manual_seed(3)
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True)
    torch.save(
        {"state_dict": build_framework(recipe, allow_code=["fixed_size"]).state_dict()},
        run / "checkpoints" / "best.ckpt",
    )
    (run / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    data = {"sha256": "abc", "train": [], "validation": []}
    provenance = {"state": "complete", "data": data, "versions": {}, "git_revision": None}
    (run / "provenance.json").write_text(json.dumps(provenance), encoding="utf-8")
    return run
