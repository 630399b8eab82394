"""Packages of small networks with random weights, one of each framework, through the real exporter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from im2im_zoo.data import open_validation_pairs
from im2im_zoo.data.statistics import fill_statistics
from im2im_zoo.engines import Engine
from im2im_zoo.package import open_package
from im2im_zoo.package.reference import Reference
from im2im_zoo.packaging import Exported, export_package
from im2im_zoo.recipe.load import load_recipe
from im2im_zoo.samples import write_samples
from im2im_zoo.training.build import build_framework

# A recipe of each framework, and of FCN one in 3D. An untrained network whose output is nearly zero cannot be packaged.
RECIPES = {
    "FCN, 2D": "nuclei_2d",
    "FCN, 3D": "nuclei_3d",
    "pix2pix": "synthesis_2d",
    "pix2pixHD": "stain_transfer_2d",
    "CycleGAN": "labelfree_3d_cyclegan",
    "diffusion": "labelfree_2d_diffusion",
    "EmbedSeg": "nuclei_instances_2d",
    "Noise2Void": "denoising_n2v_2d",
    "Self2Self": "denoising_self2self_2d",
    "Probabilistic U-Net": "segmentation_2d_probabilistic",
}


@dataclass(frozen=True)
class Case:
    """An input of the exported network, and what it gives in this process, from the state dict."""

    array: NDArray[np.float32]
    expected: NDArray[np.float32]


@dataclass(frozen=True)
class Packaged:
    """A package and the cases that programs which run the network alone are given."""

    exported: Exported
    formats: tuple[str, ...]
    cases: tuple[Case, ...]


def package_of(name: str, folder: Path) -> Packaged:
    """The package of a recipe that was not trained."""
    images = write_samples(name, folder / "images")
    recipe = fill_statistics(load_recipe(name, [("data.path", str(images))])).recipe
    torch.manual_seed(0)
    framework = build_framework(recipe).eval()
    network = framework.exported_network().eval()
    for weights in network.parameters():
        if weights.ndim > 1 and not weights.any():  # a layer that begins at zero would hide those before it
            torch.nn.init.normal_(weights, std=0.05)
    exported = export_package(
        network,
        recipe,
        open_validation_pairs(recipe),
        folder / name,
        figures={},
        architecture=framework.exported_architecture(recipe.network),
        zip_path=folder / f"{name}.zip",
    )
    with open_package(exported.folder) as package:
        (prepared,) = Reference.of(package).inputs
        # The network with the operations that the export moved into it, built from its source.
        run = package.open_engine(
            "pytorch_state_dict",
            backend="torch",
            precision="float32",
            device="cpu",
            threads=None,
            allow_code=True,
        )
        return Packaged(exported, tuple(package.weights), _cases(run, prepared, exported.folder))


def _cases(run: Engine, prepared: NDArray[Any] | None, folder: Path) -> tuple[Case, ...]:
    """The test image; and noise of another batch size and of other sizes, not square."""
    assert prepared is not None
    rdf = yaml.safe_load((folder / "rdf.yaml").read_text(encoding="utf-8"))
    grid = list(rdf["config"]["im2im_zoo"]["grid"].values())
    space = [a["min"] + (1 + i % 2) * a["step"] for i, a in enumerate(grid)]
    noise = np.random.default_rng(0).normal(size=(2, prepared.shape[1], *space)).astype(np.float32)
    arrays = (prepared.astype(np.float32), noise)
    return tuple(Case(array, run([array])[0].astype(np.float32)) for array in arrays)
