"""Batches and tiny recipes for the tests of the frameworks that learn from noisy images alone."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from im2im_zoo.frameworks.base import Framework
from im2im_zoo.frameworks.noise2void import Noise2Void
from im2im_zoo.frameworks.self2self import Self2Self
from im2im_zoo.networks.blur_pool_unet import BlurPoolUNet
from im2im_zoo.networks.self2self_unet import Self2SelfUNet
from im2im_zoo.recipe import Recipe
from im2im_zoo.recipe.load import load_recipe

KINDS = ("noise2void", "self2self")
SMALL: dict[str, list[tuple[str, object]]] = {
    "noise2void": [("network.kwargs.features", 2)],
    "self2self": [
        ("network.kwargs.features", 3),
        ("network.kwargs.depth", 2),
        ("network.kwargs.period", 4),
        ("network.kwargs.passes", 3),
    ],
}


def framework(kind: str, ndim: int = 2, channels: int = 1, **more: Any) -> Framework:
    """A small one with its weights drawn by torch's random state."""
    if kind == "noise2void":
        unet = BlurPoolUNet(ndim, channels, channels, depth=1, features=4)
        return Noise2Void(unet, masked_fraction=1 / 16, **more)
    return Self2Self(Self2SelfUNet(ndim, channels, depth=2, features=6, passes=4, period=4), **more)


def batch(ndim: int = 2, channels: int = 1, size: int = 16, count: int = 2) -> dict[str, Tensor]:
    """Images of random numbers, which are their own targets."""
    image = torch.rand(count, channels, *[size] * ndim, generator=torch.Generator().manual_seed(1))
    return {"input": image, "target": image.clone()}


def waves(ndim: int) -> dict[str, Tensor]:
    """Two images of two channels without noise, in which a voxel can be told from those around it."""
    along = torch.linspace(0, 3, 16 if ndim == 2 else 12)
    across = torch.stack(torch.meshgrid(*[along] * ndim, indexing="ij")).sum(dim=0)
    image = torch.stack([torch.sin(across), torch.cos(across), torch.sin(2 * across), torch.cos(across)])
    image = image.unflatten(0, (2, 2))
    return {"input": image, "target": image.clone()}


def tiny_recipe(kind: str, images: Path, **overrides: object) -> Recipe:
    """A recipe of ours on noisy nuclei, so small that training takes a second; `__` in keywords stands for a dot."""
    name = {"noise2void": "denoising_n2v_2d", "self2self": "denoising_self2self_2d"}[kind]
    changes: list[tuple[str, object]] = [
        *SMALL[kind],
        ("data.path", str(images)),
        ("data.patch_size", [32, 32]),
        ("data.patches_per_image", 6),
        ("data.batch_size", 3),
        ("trainer.max_epochs", 2),
        ("trainer.accelerator", "cpu"),
    ]
    more = [(key.replace("__", "."), value) for key, value in overrides.items()]
    return load_recipe(name, [*changes, *more])
