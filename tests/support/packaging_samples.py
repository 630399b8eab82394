"""Tiny recipes and networks that the packaging tests share."""

import dataclasses
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from im2im_zoo.packaging.export.sample import Steps
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.components import build_component
from im2im_zoo.recipe.load import make_recipe

# bioimageio.spec asks GitHub about any user that it does not know of; tests need no network.
KNOWN_USER = "bioimageiobot"


@dataclasses.dataclass(frozen=True)
class Pair:
    """A sample, as the data side makes them."""

    name: str
    input: xr.DataArray
    target: xr.DataArray


def tiny_recipe(ndim: int, task: str, **package: object) -> Recipe:
    space = ["z", "y", "x"][-ndim:]
    axes = ["channel", *space]
    return make_recipe(
        {
            "name": f"Tiny {task} {ndim}D",
            "framework": {"callable": "im2im_zoo.frameworks.fcn.FCN"},
            "network": {
                "callable": "monai.networks.nets.UNet",
                "kwargs": {
                    "spatial_dims": ndim, "in_channels": 1, "out_channels": 1, "channels": [4, 8], "strides": [2],
                    "norm": "batch",
                },
            },
            "data": {"path": "/home/somebody/secret/nuclei", "patch_size": [16] * ndim},
            "input": {
                "id": "image",
                "axes": ["batch", *axes],
                "channels": ["nuclei"],
                "preprocessing": [
                    {"id": "scale_range", "kwargs": {"axes": axes, "min_percentile": 1, "max_percentile": 99}},
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                ],
            },
            "output": {
                "id": "result",
                "task": task,
                "postprocessing": [{"id": "sigmoid"}] if task == "semantic" else [],
            },
            "package": {
                "description": "Finds nuclei in fluorescence images.",
                "authors": [{"name": "Ada Lovelace", "github_user": KNOWN_USER}],
                "license": "MIT",
                "cite": [{"text": "A paper", "doi": "10.1234/abc"}],
                "training_data": "Nuclei of the StarDist package.",
                "documentation": "Trained on nothing: for tests.",
                **package,
            },
        },
        "tiny",
    )  # fmt: skip


def network_of(recipe: Recipe) -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = build_component(recipe.network, "network")
    return network.eval()


def whole_output(network: nn.Module, recipe: Recipe, sample: Pair, **code: Any) -> xr.DataArray:
    """Predict a whole sample as a package has to: its steps in memory, mirrored at the end up to an even size, and cut."""
    steps = Steps.of(recipe, **code)
    image = steps.past_custom(sample.input)
    prepared = steps.prepare(image).to_numpy()
    missing = [(0, 0), (0, 0), *((0, n % 2) for n in prepared.shape[2:])]
    with torch.inference_mode():
        output = network(torch.from_numpy(np.pad(prepared, missing, mode="reflect"))).numpy()
    space = tuple(slice(n) for n in prepared.shape[2:])
    return steps.finish(output[(slice(None), slice(None), *space)], image).isel(batch=0)
